#!/bin/sh
# The development server has no SQL schema to set up.
echo "stand-in for temporal-sql-tool: nothing to do for: $*"
