#!/usr/bin/env bash
# Runs one of the Python tests here: the script, then NAME=PATH of the programs it uses.
exec /usr/bin/python3 -B "$@"
