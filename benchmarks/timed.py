"""Run one command and write its exit code, wall seconds, processor seconds and largest resident set (KiB) to a file.

Linux lets a process inherit the peak memory of the one that started it, so this imports next to nothing: about 10 MiB is
the least that can be seen. `timed.py RESULT COMMAND ARGUMENT…`.
"""

import os
import sys
import time


def main() -> None:
    result, *arguments = sys.argv[1:]
    start = time.perf_counter()
    child = os.posix_spawnp(arguments[0], arguments, os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - start
    processor = usage.ru_utime + usage.ru_stime
    with open(result, "w", encoding="ascii") as file:
        file.write(f"{os.waitstatus_to_exitcode(status)} {wall} {processor} {usage.ru_maxrss}")


main()
