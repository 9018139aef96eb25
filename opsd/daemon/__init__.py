"""What keeps the promise unattended: the scheduler, the jobs that it has run, and the services that run them.

Promise: a job is a child process, or a unit of its own; whatever becomes of it, what started it goes on.
"""
