"""One folder per framework, each with the same files; `registry` finds and loads them lazily, by name."""
