#!/bin/sh
# What a block of workers starts; its zip lies beside it. docs/worker-environments.md has the rules as a table.
#
#   sh THIS look                                  what is first on PATH, to compare it before and after worker_init
#   sh THIS pool OWN [--lifeline FIFO GROUP --guard] MODULE ARGUMENTS...
#   sh THIS environment OWN SPECIFICATION         print the directory of the environment that the JSON file describes
#
# OWN is the endpoint's own Python, which need not be on this machine; - for none.
# Variables: GC_BEFORE is what `look` said before worker_init, GC_LIBRARIES_BEFORE was LD_LIBRARY_PATH then (both are
# unset without a worker_init); GC_WORKER_PYTHON is for a worker_init that names the Python itself.

zip=${0%.sh}.zip
ours=globus-compute-endpoint
tab='	'
newline='
'

refuse() {
    echo "$*" >&2
    exit 69
}

# One line: WORD, path, and the program that it is in the end (a shim or a wrapper has another one); no Python 3: nothing.
look_at() {
    path=$(command -v "$1") || return 0
    program=$("$path" -c 'import sys; print(sys.executable if sys.version_info[0] > 2 else "")' 2>/dev/null)
    echo "$1$tab$path$tab$program"
}

look() {
    look_at python3
    look_at python
    echo "program$tab$(command -v $ours)"
}

was_there() {
    case "$newline$GC_BEFORE$newline" in *"$newline$1$newline"*) return 0 ;; esac
    return 1
}

# Sets `chosen` to the Python that worker_init has chosen; empty: none.
choose() {
    chosen=
    if [ -n "${GC_WORKER_PYTHON-}" ]; then
        chosen=$(command -v "$GC_WORKER_PYTHON") || refuse "GC_WORKER_PYTHON is $GC_WORKER_PYTHON, which is not there."
    elif [ -n "${GC_BEFORE-}" ]; then
        for word in python3 python; do
            line=$(look_at $word)
            [ -n "$line" ] || continue
            was_there "$line" && continue
            rest=${line#*"$tab"}
            if [ -n "${rest#*"$tab"}" ]; then
                chosen=${rest%%"$tab"*}
                return
            fi
            [ $word = python ] || refuse "The Python that worker_init has put first on PATH, ${rest%%"$tab"*}, doesn't run:" \
                "$("${rest%%"$tab"*}" -c '' 2>&1 | tail -n 3)"
        done
    fi
}

has() {
    "$1" -c "import importlib.util as u, sys; sys.exit(sys.version_info < (3, 10) or u.find_spec('$2') is None)" 2>/dev/null
}

# The endpoint's own Python, isolated, as worker_init may have set variables for another one.
own_has_all() {
    [ "$own" != - ] && [ -x "$own" ] &&
        "$own" -I -c "import importlib.util as u, sys; sys.exit(u.find_spec('endpoint.engines.pool_task') is None)" 2>/dev/null
}

# Whether a program of our name is ours, of a release that has what we start; other packages have that name, too.
is_ours() {
    "$1" python-exec endpoint.engines.pool_task >/dev/null 2>&1
}

libraries_as_before() {
    if [ -n "${GC_LIBRARIES_BEFORE+set}" ]; then
        export GC_USER_LIBRARIES="${LD_LIBRARY_PATH-}" LD_LIBRARY_PATH="$GC_LIBRARIES_BEFORE"
        [ -n "$LD_LIBRARY_PATH" ] || unset LD_LIBRARY_PATH
    fi
}

# `run COMMAND...`: become it, tied to the endpoint's life where that is asked for.
run() {
    unset GC_BEFORE GC_LIBRARIES_BEFORE
    [ -z "$tie" ] || exec "$own" -I -m endpoint.engines.python_exec --lifeline "$fifo" "$group" --guard --command "$@"
    exec "$@"
}

pool() {
    own=$1 tie=
    shift
    if [ "$1" = --lifeline ]; then
        tie=yes fifo=$2 group=$3
        shift 4
    fi
    choose
    program=$(command -v $ours)
    if [ -n "$chosen" ]; then
        "$chosen" "$zip" check || exit 69
        if [ -x "${chosen%/*}/$ours" ] && is_ours "${chosen%/*}/$ours"; then
            run "${chosen%/*}/$ours" python-exec "$@"
        elif own_has_all; then
            export GC_USER_PYTHON="$chosen" GC_WORKER_ZIP="$zip"
            libraries_as_before
            run "$own" -I -m endpoint.engines.python_exec "$@"
        elif has "$chosen" parsl; then
            run "$chosen" "$zip" run "$@"
        fi
        refuse "The endpoint's own Python is not on $(uname -n), and $chosen, which worker_init has chosen, has no parsl:" \
            "install parsl there, or the endpoint where the nodes see it."
    fi
    if [ -n "$program" ] && [ -n "${GC_BEFORE-}" ] && ! was_there "program$tab$program" && is_ours "$program"; then
        run "$program" python-exec "$@"
    elif own_has_all; then
        run "$own" -m endpoint.engines.python_exec "$@"
    elif [ -n "$program" ] && is_ours "$program"; then
        run "$program" python-exec "$@"
    fi
    for word in python3 python; do
        path=$(command -v $word) || continue
        has "$path" parsl && run "$path" "$zip" run "$@"
    done
    refuse "Nothing on $(uname -n) can run the pool of workers: not the endpoint's own Python ($own), no $ours on PATH," \
        "and no Python there that is 3.10 or newer and has parsl."
}

environment() {
    own=$1
    if own_has_all; then
        exec "$own" -I "$zip" environment "$2"
    fi
    for word in python3 python; do
        path=$(command -v $word) || continue
        "$path" "$zip" check 2>/dev/null && exec "$path" "$zip" environment "$2"
    done
    refuse "Nothing on $(uname -n) can make the workers' environment: there is no Python 3.10 or newer on PATH."
}

case "$1" in
    look) look ;;
    pool) shift && pool "$@" ;;
    environment) shift && environment "$@" ;;
    *) refuse "usage: $0 look | pool OWN MODULE ARGUMENTS... | environment OWN SPECIFICATION" ;;
esac
