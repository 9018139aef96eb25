"""What watches: it listens to what was done and keeps it.

Promise: nothing below imports it; only `app` joins it to what it watches.
"""
