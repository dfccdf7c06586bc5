#!/bin/sh
# The media relay in C under the sanitizers of the compiler. Prints what it did; ends with 1 when
# one of them has something to say, or when a control shows that it would not have.
#
#   tests/sanitize.sh [PYTHON]
#
# 1. ThreadSanitizer: the relay's thread under traffic while calls are set up, read and closed
#    (core_threads.c).
# 2. AddressSanitizer, UndefinedBehaviorSanitizer and the leak checker: the same program.
# 3. The first two of these: Python's tests of the core, with an extension module of its own in a
#    temporary folder.
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
core=sipbridge/relay_core
flags="-std=c11 -D_GNU_SOURCE -g -O1 -fno-omit-frame-pointer -Wall -Wextra
  -Wno-missing-field-initializers -Wno-cast-function-type -I$core"
memory="-fsanitize=address,undefined -fno-sanitize-recover=all"
export ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1" UBSAN_OPTIONS="print_stacktrace=1"
export TSAN_OPTIONS="halt_on_error=0"

# Where memory is laid out too randomly for a sanitizer, and this may be told so.
still=""
if setarch "$(uname -m)" -R true 2>/dev/null; then still="setarch $(uname -m) -R"; fi

# A tree of links with a module of its own: the one that was built for use stays as it is.
mkdir "$work/tree" "$work/tree/sipbridge"
for one in "$PWD"/*; do
    [ "$(basename "$one")" = sipbridge ] || ln -s "$one" "$work/tree/"
done
for one in "$PWD"/sipbridge/*; do
    case $one in *.so) ;; *) ln -s "$one" "$work/tree/sipbridge/" ;; esac
done
include=$($python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
suffix=$($python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
# shellcheck disable=SC2086
nice "${CC:-gcc}" $flags $memory -fPIC -shared -I"$include" $core/*.c \
    -o "$work/tree/sipbridge/relay_core$suffix" -lsrtp2 -lpthread -lm &
compiling=$!

sources=$(grep -L -e Python.h -e module_parts.h $core/*.c)
build() { # name, flags...
    name=$1
    shift
    # shellcheck disable=SC2086
    "${CC:-gcc}" $flags "$@" tests/core_threads.c $sources -o "$work/$name" -lsrtp2 -lpthread -lm
}
run() { # name, seconds
    rm -f "$work/tap"
    $still "$work/$1" "$work/tap" "$2" >"$work/$1.log" 2>&1
}
must_pass() { # name, seconds, what
    if run "$1" "$2"; then
        echo "$3: nothing to report ($(tail -n 1 "$work/$1.log"))"
    else
        cat "$work/$1.log"
        echo "$3: see above" >&2
        exit 1
    fi
}
must_complain() { # name, seconds, what, words
    if run "$1" "$2" || ! grep -q "$4" "$work/$1.log"; then
        cat "$work/$1.log"
        echo "$3: the control was not noticed" >&2
        exit 1
    fi
    echo "$3: $(grep -c "$4" "$work/$1.log") complaints about the control, as there should be"
}

build threads -fsanitize=thread
must_pass threads 5 "ThreadSanitizer"
build lockless -fsanitize=thread -DWITHOUT_LOCK
must_complain lockless 1 "ThreadSanitizer" "WARNING: ThreadSanitizer: data race"

# shellcheck disable=SC2086
build memory $memory
must_pass memory 3 "AddressSanitizer and leaks"
# shellcheck disable=SC2086
build forgetful $memory -DFORGETFUL
must_complain forgetful 1 "Leaks" "ERROR: LeakSanitizer"

wait $compiling
cd "$work/tree"
tests=$(ls tests/test_core_*.py)
# Long for their numbers' sake alone, or about memory that the sanitizers keep.
others="not wrap_twice and not wrap_without_a_seam and not is_given_back"
# Python itself gives back little at its end: leaks are looked for above. Its own allocator would
# hide an overflow.
# shellcheck disable=SC2086
LD_PRELOAD="$("${CC:-gcc}" -print-file-name=libasan.so) $("${CC:-gcc}" -print-file-name=libubsan.so)" \
    ASAN_OPTIONS="detect_leaks=0" PYTHONMALLOC=malloc CALLSHIELD_SANITIZED=1 \
    $still "$python" -m pytest -q -x -p no:cacheprovider -p no:randomly --timeout=300 \
    --basetemp="$work/pytest" -k "$others" $tests
echo "AddressSanitizer and UndefinedBehaviorSanitizer: nothing to report in Python's tests"
