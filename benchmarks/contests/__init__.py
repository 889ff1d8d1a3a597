"""One module a contest: a function of Settings that `@contest` registers."""
