"""The only place that builds and joins objects: a session, and a module for each thing that a person asks for.

Promise: nothing here decides what a feature decides or prints what the command line prints; each answer is a frozen value.
"""
