"""Run headstart in production on one machine: what `headstart up` starts and watches."""
