"""The command line: parse, call app, render. A module for each noun, imported only when its command runs."""
