"""Running headstart like production on one machine: what `headstart up` starts and watches."""
