"""Which images of a collection are like another one."""
