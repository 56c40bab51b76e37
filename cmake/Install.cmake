# Filled by tests/package: the exported package.
