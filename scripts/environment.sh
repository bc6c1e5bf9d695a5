# Sourced by the other shell scripts: makes .venv with the packages of requirements.txt, once.
# Afterwards $PYTHON is the environment's interpreter. Every failure is one line that says what to do.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON=.venv/bin/python
[ "${OS-}" = Windows_NT ] && PYTHON=.venv/Scripts/python.exe # in Git Bash
export PYTHONUTF8=1 # not every terminal's own encoding has the character 峯
CPU_WHEELS=https://download.pytorch.org/whl/cpu

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

find_python() {
    local name
    for name in "${PYTHON3:-python3}" python3.13 python3.12 python3.11 python3.10 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    return 1
}

# PyPI's Linux build of torch brings gigabytes of CUDA. Without a GPU take the CPU build, where it can be reached at all:
# behind a closed network the question is answered in three seconds, and PyPI's (or the configured index's) build serves.
install_cpu_torch() {
    [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null || return 0
    "$PYTHON" - "$CPU_WHEELS/torch/" <<'EOF' 2>/dev/null || return 0
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=3)
EOF
    pip_install --index-url "$CPU_WHEELS" "$(grep '^torch==' requirements.txt)" || true
}

pip_install() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --retries 1 "$@" >>.venv/install.log 2>&1
}

ensure_environment() {
    local python stamp
    stamp=$(cat requirements.txt pyproject.toml | cksum)
    if [ -x "$PYTHON" ] && [ "$(cat .venv/complete 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    if [ ! -x "$PYTHON" ]; then
        python=$(find_python) || fail "Python 3.10 or newer is needed, and none was found: install it from python.org"
        "$python" -m venv .venv >/dev/null 2>&1 ||
            fail "could not make .venv with $python: install its venv module (Debian, Ubuntu: apt install python3-venv)"
    fi
    echo "Installing the packages of requirements.txt into .venv (a few minutes, only this once) …"
    : >.venv/install.log
    install_cpu_torch
    pip_install -r requirements.txt && pip_install --no-deps --editable . ||
        fail "the packages could not be installed. Is there a network? pip's own words are in .venv/install.log"
    echo "$stamp" >.venv/complete
}
