"""Says what each standard stream is, how large the terminal is, and whether there is a controlling one."""

import os

for fd, name in enumerate(("stdin", "stdout", "stderr")):
    print(f"{name} {'terminal' if os.isatty(fd) else 'other'}")
if os.isatty(1):
    size = os.get_terminal_size(1)
    print(f"size {size.columns}x{size.lines}")
try:
    os.close(os.open("/dev/tty", os.O_RDWR))
    print("controlling terminal yes")
except OSError:
    print("controlling terminal no")
