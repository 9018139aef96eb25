# Set up the checkout for the scripts beside this file, which source it.
#
# An environment is used only once it is whole: its stamp is written last and names what the lock says, so a killed or
# outdated set-up is made again. Two that start at once wait for each other. What is printed goes to stderr.

checkout=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)
# Compiled code is kept, as where opsd is installed, whatever the caller set: without it each start takes a fifth of a second more.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# Sets $wanted: the stamp of an environment with the packages of lock $1, one line a file that it follows from.
# The lines hold the checkout's path too: an environment does not survive a move.
read_wanted() {
  wanted=$(sha256sum -- "$checkout/$1" "$checkout/pyproject.toml") || die "cannot read $1"
}

# Whether environment $1 was made by the interpreter that was asked for (any, if none was).
is_of_python() {
  [[ -r $1/made-by && (-z ${OPSD_PYTHON:-} || $(<"$1/made-by") == $(command -v -- "$OPSD_PYTHON")) ]]
}

# Whether environment $1 holds the packages of lock $2, as they are wanted now.
is_ready() {
  is_of_python "$1" && [[ -r $1/stamp-$2 && $(<"$1/stamp-$2") == "$wanted" ]]
}

# Whether environment $1 can be completed: none of the locks that it was made from has changed.
is_sound() {
  local stamp wanted
  is_of_python "$1" || return 1
  for stamp in "$1"/stamp-*; do
    [[ -r $stamp ]] || return 1
    read_wanted "${stamp##*/stamp-}"
    [[ $(<"$stamp") == "${wanted%%$'\n'*}"* ]] || return 1
  done
}

# Sets $interpreter: OPSD_PYTHON, else the first Python on the path that is new enough.
find_python() {
  local candidate
  for candidate in ${OPSD_PYTHON:+"$OPSD_PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      interpreter=$(command -v -- "$candidate")
      return
    fi
    [[ -z ${OPSD_PYTHON:-} ]] || die "OPSD_PYTHON=$OPSD_PYTHON is not a Python of 3.11 or newer"
  done
  die "no Python of 3.11 or newer found: install python3, or name one in OPSD_PYTHON"
}

# apt_install PACKAGE...: Debian packages, where root and apt allow; false if not, or if one failed.
apt_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 1
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
  "${apt[@]}" update >/dev/null 2>&1 || true
  "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1
}

# A Python without ensurepip (Debian splits it off) can make no environment with pip in it.
require_ensurepip() {
  "$interpreter" -c 'import ensurepip, venv' 2>/dev/null && return
  say "installing python3-venv, which $interpreter lacks"
  apt_install python3-venv || true
  "$interpreter" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$interpreter cannot make virtual environments: run 'apt-get install python3-venv' as root"
}

# run_quietly WHAT COMMAND...: shows what the command printed only when it fails.
run_quietly() {
  local what=$1 output
  shift
  if ! output=$("$@" 2>&1); then
    printf '%s\n' "$output" >&2
    die "$what failed"
  fi
}

# make_environment DIR LOCK: the environment from nothing, or its missing packages.
make_environment() {
  local pip=("$1/bin/python" -m pip --disable-pip-version-check -q)
  say "setting up ${1##*/} from $2 (once, about half a minute)"
  if ! is_sound "$1"; then
    find_python
    require_ensurepip
    rm -rf -- "$1"
    run_quietly "making ${1##*/}" "$interpreter" -m venv "$1"
    printf '%s' "$interpreter" >"$1/made-by"
  fi
  run_quietly "installing $2" "${pip[@]}" install --no-deps --require-hashes --only-binary :all: -r "$checkout/$2"
  run_quietly "installing opsd" "${pip[@]}" install --no-deps --no-build-isolation --no-index -e "$checkout"
  printf '%s' "$wanted" >"$1/stamp-$2"
  say "set-up of ${1##*/} done"
}

# ensure_environment DIR LOCK: $environment, whole, with the packages of the lock.
ensure_environment() {
  environment=$checkout/$1
  local wanted lock
  read_wanted "$2"
  is_ready "$environment" "$2" && return
  command -v flock >/dev/null || die "flock is missing: install util-linux"
  exec {lock}>"$environment.lock" || die "cannot write in $checkout"
  flock "$lock"
  is_ready "$environment" "$2" || make_environment "$environment" "$2"
  exec {lock}>&-
}
