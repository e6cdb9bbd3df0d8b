#!/bin/sh
# Makes everything that Fengshou needs on this machine, and only what is missing: system packages, the virtual
# environment in .venv, the pinned packages, the compiled modules. A second run finds
# nothing to do and needs no network. `make` calls it; PYTHON names another interpreter than the one it would find.
# With the word "emulators" also those by which the tests try the verification kernel on other processors.
set -eu

cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=.venv
log=build/setup.log
steps=4

say() { printf '%s\n' "$*"; }
# Progress is not output: `make demo ARGS=--json` prints JSON and nothing else.
# shellcheck disable=SC2059  # the callers' formats are constants
tell() { printf "$@" >&2; }

# One line, nothing else: what stands in the way and what to do.
stop() {
    tell 'setup: %s\n' "$*"
    exit 1
}

# step N WHAT COMMAND...: run it with its output in the log; show its number, its name and how long it took.
step() {
    number=$1 what=$2
    shift 2
    tell '[%s/%s] %s ... ' "$number" "$steps" "$what"
    begun=$(date +%s)
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tell 'failed; the end of %s:\n%s\n' "$root/$log" "$(tail -n 25 "$log")"
        exit 1
    fi
    tell 'done in %s s\n' $(($(date +%s) - begun))
}

skip() { tell '[%s/%s] %s ... nothing to do\n' "$1" "$steps" "$2"; }

# --- what is there -----------------------------------------------------------------------------------------------

# programs NAME: every program of that name in the path, a line each.
programs() {
    saved=$IFS
    IFS=:
    for folder in $PATH; do test ! -x "$folder/$1" || say "$folder/$1"; done
    IFS=$saved
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# An interpreter that stands in its program runs the switch in 15 % less CPU than one in a shared library (decision 13).
is_in_its_program() { "$1" -c 'import sys; sys.exit("libpython" in open("/proc/self/maps").read())' 2>/dev/null; }

# The one that PYTHON names, else the first in its program, else the first.
find_python() {
    { say "${PYTHON:-}"; for name in python3 python3.14 python3.13 python3.12 python3.11; do programs $name; done; } | {
        found=
        while read -r candidate; do
            is_new_enough "$candidate" || continue
            found=${found:-$candidate}
            if test "$candidate" = "${PYTHON:-}" || is_in_its_program "$candidate"; then
                found=$candidate
                break
            fi
        done
        test -z "$found" || "$found" -c 'import os, sys; print(os.path.realpath(sys.executable))'
    }
}

# compiles COMPILER [OPTION...]: whether it makes a program of standard input. Headers and libraries are tried by use,
# wherever they come from.
compiles() {
    compiler=$1
    shift
    probe=$(mktemp -d)
    cat >"$probe/probe.c"
    status=0
    "$compiler" "$probe/probe.c" -o "$probe/probe" "$@" 2>/dev/null || status=1
    rm -r "$probe"
    return $status
}

has_compiler() {
    command -v cc >/dev/null && echo '#include <stdio.h>
int main(void) { return puts("") < 0; }' | compiles cc
}

has_python_headers() {
    test -f "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
}

has_openssl() {
    echo '#include <openssl/evp.h>
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "OpenSSL 3.0 brings SM2 signatures through EVP"
#endif
int main(void) { return EVP_sm3() == 0; }' | compiles cc -lcrypto
}

# pyscard is built here; the tests run a daemon of their own with virtual readers.
has_pyscard_sources() {
    command -v swig >/dev/null && echo '#include <winscard.h>
int main(void) { return SCardReleaseContext(0) != 0; }' | compiles cc -I/usr/include/PCSC -lpcsclite
}

is_venv_of_python() {
    base=$("$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))' 2>/dev/null) &&
        test "$base" = "$python"
}

# Debian's names of what is missing, for this interpreter.
missing_packages() {
    if [ -z "$python" ]; then
        # Without an interpreter its headers and venv cannot be tried: they come with it.
        echo python3 python3-dev python3-venv
    else
        case $python in
            /usr/bin/python3.*)
                name=$(basename "$python")
                test "$(readlink -f /usr/bin/python3)" != "$python" || name=python3
                "$python" -c 'import venv, ensurepip' 2>/dev/null || echo "$name-venv"
                has_python_headers || echo "$name-dev"
                ;;
            *)
                "$python" -c 'import venv, ensurepip' 2>/dev/null || stop "$python has no venv module; set PYTHON to another one"
                has_python_headers || stop "$python has no header Python.h; set PYTHON to another one"
                ;;
        esac
    fi
    has_compiler || echo gcc libc6-dev
    { has_compiler && has_openssl; } || echo libssl-dev
    command -v openssl >/dev/null || echo openssl # the tests verify with it, as an auditor would
    { has_compiler && has_pyscard_sources; } || echo swig libpcsclite-dev
    test -x /usr/sbin/pcscd || echo pcscd
    test -f /usr/lib/pcsc/drivers/serial/libifdvpcd.so || echo vsmartcard-vpcd
}

# An Ice Lake and an ARM64 processor for tests/codecs/test_verify_emulated.py, which builds for them on x86-64 only.
missing_emulators() {
    test "$(uname -m)" = x86_64 || return 0
    command -v bochs >/dev/null || echo bochs
    ls /usr/lib/*/bochs/plugins/libbx_term_gui.so >/dev/null 2>&1 || echo bochs-term
    test -f /usr/share/bochs/BIOS-bochs-legacy || echo bochsbios
    echo 'int main(void) { return 0; }' | compiles aarch64-linux-gnu-gcc -static ||
        echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    command -v qemu-aarch64 >/dev/null || echo qemu-user
}

# --- steps -------------------------------------------------------------------------------------------------------

install_packages() {
    # shellcheck disable=SC2086  # both are lists of words
    set -- $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $packages
    # A fresh machine has no package lists yet, an old one has old ones: fetch them only when they do not do.
    "$@" || { $as_root apt-get -q update && "$@"; }
}

make_venv() {
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

# The pins of pyproject.toml, one a line; what they draw in is pinned by constraints.txt.
requirements() {
    "$venv/bin/python" - <<'END'
import tomllib

with open("pyproject.toml", "rb") as file:
    document = tomllib.load(file)
project = document["project"]
print(*document["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["card"],
      *project["optional-dependencies"]["dev"], *project["optional-dependencies"]["bench"], sep="\n")
END
}

install_requirements() {
    requirements >build/requirements.txt
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        -r build/requirements.txt -c deploy/constraints.txt
}

install_fengshou() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        --no-build-isolation --no-deps -e .
}

# --- the way -----------------------------------------------------------------------------------------------------

# A stamp holds what its step was made from, the place included; a step whose stamp says the same is not done again.
digest() { { say "$root" "$python"; cat "$@"; } | sha256sum | cut -d ' ' -f 1; }
stamped() { test "$(cat "$venv/$1.stamp" 2>/dev/null)" = "$2"; }
stamp() { say "$2" >"$venv/$1.stamp"; }

for extra; do test "$extra" = emulators || stop "what is '$extra'? It could be: emulators"; done

mkdir -p build
exec 9>build/.lock
flock 9 # two of them at once would tear the environment apart
: >"$log"

python=$(find_python)
missing=$(missing_packages; test $# = 0 || missing_emulators)
packages=$(printf '%s' "$missing" | tr '\n' ' ')
if [ -z "$packages" ]; then
    skip 1 "system packages"
else
    command -v apt-get >/dev/null || stop "install these Debian packages or what is like them here: $packages"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root=sudo
        # A password can be asked for only where somebody can type one.
        { sudo -n true || { test -t 0 && sudo -v; }; } 2>/dev/null || stop "run this first: sudo apt-get install $packages"
    fi
    step 1 "system packages: $packages" install_packages
    python=$(find_python)
    test -n "$python" || stop "Python 3.11 or newer is needed; this system's packages have none: set PYTHON to one"
fi

if is_venv_of_python; then
    skip 2 "virtual environment"
else
    step 2 "virtual environment with $("$python" -V)" make_venv
fi

key=$(digest pyproject.toml deploy/constraints.txt)
if stamped requirements "$key"; then
    skip 3 "pinned packages"
else
    step 3 "pinned packages" install_requirements
    stamp requirements "$key"
fi

# What the compiled modules and the package's finder are made from. A pattern without a file stands for itself.
sources=$(for file in setup.py codecs/*.pyx codecs/*.pxd codecs/*.c codecs/*.h; do test ! -f "$file" || say "$file"; done)
# shellcheck disable=SC2086  # none of the names has a space
key=$(digest pyproject.toml $sources)
if stamped fengshou "$key"; then
    skip 4 "compiled modules"
else
    step 4 "compiled modules" install_fengshou
    stamp fengshou "$key"
fi
