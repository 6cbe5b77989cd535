#!/bin/sh
# Start wherry-oci. A shell starts in a tenth of the time that the interpreter takes to read what an installer's script
# makes it read (site, .pth files); so the shell finds the interpreter and the package, and the interpreter nothing else.
# The build writes the folder of an editable install into the next line.
root=

here=$0
case $here in
*/*) ;;
*) [ -f "$here" ] && here=./$here || here=$(command -v -- "$here") ;;
esac
[ -h "$here" ] && here=$(readlink -f -- "$here")
bin=${here%/*}

if [ -z "$root" ]; then
    for root in "$bin"/../lib/python3*/site-packages "$bin"/../lib/python3*/dist-packages "$bin"/..; do
        [ -f "$root/runtime/start.py" ] && break
    done
fi
python=$bin/python3
if [ ! -x "$python" ]; then # not a virtual environment: the folder of the packages names the version
    python=${root%/*}
    python=${python##*/}
    case $python in python3*) ;; *) python=python3 ;; esac
fi

exec "$python" -I -S -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from runtime.start import main; main()' "$root" "$@"
