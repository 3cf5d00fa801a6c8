# shellcheck shell=sh disable=SC2030,SC2031 # $tmp is for what runs within `installing`
# Gets what the scripts need and this machine lacks. Sourced, from the root of the checkout:
#
#   need_python    uv and the Python packages; without them it ends the script with code 127
#   need_servers   livekit-server and redis-server; without them, tests are skipped
#   need_images    what builds images, and a base for them; without, tests are skipped
#   need_deploy    what checks the files in deploy/; without, tests are skipped
#
# What is on PATH is used, except for a livekit-server of another version than the tests are made
# for. LIVEKIT_SERVER_BIN names one to use all the same. What is fetched goes into a cache outside
# the checkout, which may be deleted at any time.

uv_version=0.13.9
livekit_server_version=1.13.5
compose_go_version=2.9.1
base_suite=bookworm
cache="${XDG_CACHE_HOME:-$HOME/.cache}/build-aware-agent"

export PATH="$PATH:$cache/bin"
if [ -n "${CI:-}" ]; then
    export UV_LOCKED=1
    without="fail"
else
    without="are skipped"
fi

say() {
    printf '%s\n' "setup: $*" >&2
}

have() {
    command -v "$1" >/dev/null
}

# Runs a command that installs something, with a folder $tmp beside its target, so that what is
# complete can be moved there at once. One at a time, where the machine has flock.
installing() (
    mkdir -p "$cache/bin"
    if have flock; then
        exec 9>"$cache/lock"
        flock -n 9 || { say "waiting for another run, which installs something"; flock 9; }
        rm -rf "$cache"/tmp.* # of runs that were killed
    fi
    tmp=''
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    tmp=$(mktemp -d "$cache/tmp.XXXXXX") || exit 1
    "$@" 9>&- # a daemon that a package starts must not keep the lock
)

# As above; a failure leaves it to the caller to see what is missing, but an interrupt ends all.
try_installing() {
    installing "$@" || { code=$?; [ "$code" -lt 128 ] || exit "$code"; }
}

# Runs a command with one line before it and one after it; its output is shown if it fails.
step() {
    say "$1"
    shift
    begin=$(date +%s)
    if "$@" >"$tmp/log" 2>&1 </dev/null; then
        say "done in $(($(date +%s) - begin)) s"
    else
        say "that failed:"
        tail -n 5 "$tmp/log" >&2
        return 1
    fi
}

need_python() {
    have uv || try_installing get_uv
    if ! have uv; then
        say "uv is missing; install it (https://docs.astral.sh/uv/) or Python with venv, and run this again"
        exit 127
    fi
    [ -d "${UV_PROJECT_ENVIRONMENT:-.venv}" ] || try_installing get_packages
}

get_uv() {
    # Another run may have been faster.
    if have uv || ! have python3; then return; fi
    step "installing uv $uv_version into $cache/bin" fetch_uv
}

fetch_uv() {
    python3 -m venv "$tmp/venv" &&
        "$tmp/venv/bin/pip" install --disable-pip-version-check "uv==$uv_version" &&
        mv -f "$tmp/venv/bin/uv" "$cache/bin/uv"
}

get_packages() {
    step "installing the Python packages into .venv; this takes a minute or two" uv sync
}

need_servers() {
    if [ -n "${LIVEKIT_SERVER_BIN:-}" ]; then
        version=$(version_of "$LIVEKIT_SERVER_BIN")
        if [ -z "$version" ]; then
            say "LIVEKIT_SERVER_BIN=$LIVEKIT_SERVER_BIN is no livekit-server; give the path of one, or unset it to get $livekit_server_version"
            exit 127
        fi
    elif ! find_livekit_server; then
        try_installing get_livekit_server
        find_livekit_server || version=$(version_of livekit-server)
    fi
    if [ -z "$version" ]; then
        say "livekit-server is missing: the tests that need it $without. To get it, install Go and run this again, or run: curl -sSL https://get.livekit.io | bash"
    elif [ "$version" != "$livekit_server_version" ]; then
        say "using livekit-server $version, but the tests are made for $livekit_server_version; with Go on PATH this gets it"
    fi

    have redis-server || try_installing get_redis
    if ! have redis-server; then
        say "redis-server is missing: the tests that need it $without. To get it, run: sudo apt-get install redis-server (on a Mac: brew install redis)"
    fi
}

# The version of a livekit-server; nothing if it is none.
version_of() {
    "$1" --version 2>/dev/null | sed -n 's/^livekit-server version //p'
}

# Finds one of the right version and names it to the tests, also where PATH has another one.
find_livekit_server() {
    for found in "$(command -v livekit-server)" "$cache/bin/livekit-server"; do
        version=$(version_of "$found")
        if [ "$version" = "$livekit_server_version" ]; then
            export LIVEKIT_SERVER_BIN="$found"
            return
        fi
    done
    return 1
}

get_livekit_server() {
    if find_livekit_server; then return; fi
    if have go; then
        step "building livekit-server $livekit_server_version with Go into $cache/bin; this takes a minute or two" \
            build_livekit_server && return
    fi
    if have brew && ! have livekit-server; then
        step "installing livekit-server with brew" brew install livekit
    fi
}

build_livekit_server() {
    GOBIN="$tmp" go install "github.com/livekit/livekit-server/cmd/server@v$livekit_server_version" &&
        mv -f "$tmp/server" "$cache/bin/livekit-server"
}

# The packages of Debian's base change, so each month gets a new one.
need_images() {
    if [ "$(id -u)" != 0 ]; then
        say "images are built and run as root: the tests that do so $without"
        return
    fi
    export IMAGE_BASE="$cache/base-$base_suite-$(date +%Y-%m).tar"
    if { have buildah || docker info >/dev/null 2>&1; } && [ -f "$IMAGE_BASE" ]; then return; fi
    try_installing get_images
    if ! { have buildah || docker info >/dev/null 2>&1; } || [ ! -f "$IMAGE_BASE" ]; then
        say "buildah or a base image is missing: the tests of images $without. To get them, run on Debian, as root: apt-get install buildah debootstrap, and this again"
    fi
}

get_images() {
    if may_apt_install && ! { have buildah && have debootstrap; }; then
        step "installing buildah and debootstrap with apt-get" \
            apt_install buildah debootstrap debian-archive-keyring iproute2 || return
    fi
    if have debootstrap && [ ! -f "$IMAGE_BASE" ]; then
        step "making a base image of Debian $base_suite with debootstrap; this takes a minute" make_base
    fi
}

# A root file system with Python and nothing else, from where this machine gets its packages.
make_base() {
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $base_suite" "Component: main" \
        "Created-By: Packages" 2>/dev/null | head -n 1)
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$base_suite" \
        "$tmp/base" "${mirror:-http://deb.debian.org/debian}" &&
        rm -rf "$tmp"/base/var/cache/apt/* "$tmp"/base/var/lib/apt/lists/* &&
        tar -C "$tmp/base" --one-file-system -cf "$tmp/base.tar" . &&
        rm -f "$cache"/base-*.tar &&
        mv -f "$tmp/base.tar" "$IMAGE_BASE"
}

need_deploy() {
    have compose-spec || try_installing get_compose_spec
    have compose-spec || say "compose-spec is missing: the tests that need it $without. To get it, install Go and run this again"
    has_systemd || try_installing get_systemd
    has_systemd || say "systemd is missing: the tests that need it $without. To get it, run: sudo apt-get install systemd"
}

# The reference implementation of the compose specification.
get_compose_spec() {
    if have compose-spec || ! have go; then return; fi
    step "building compose-spec $compose_go_version with Go into $cache/bin" build_compose_spec
}

build_compose_spec() {
    GOBIN="$tmp" go install "github.com/compose-spec/compose-go/v2/cmd@v$compose_go_version" &&
        mv -f "$tmp/cmd" "$cache/bin/compose-spec"
}

has_systemd() {
    [ -x /lib/systemd/systemd ] && have systemd-analyze
}

get_systemd() {
    if has_systemd || ! may_apt_install; then return; fi
    step "installing systemd with apt-get" apt_install systemd
}

get_redis() {
    if have redis-server; then return; fi
    if may_apt_install; then
        step "installing redis-server with apt-get" apt_install redis-server
    elif have brew; then
        step "installing redis with brew" brew install redis
    fi
}

# Whether packages may be installed here, and as whom.
may_apt_install() {
    have apt-get || return
    if [ "$(id -u)" = 0 ]; then
        as_root=''
    elif [ -n "${CI:-}" ]; then
        as_root='sudo -n'
    else
        return 1
    fi
}

apt_install() {
    $as_root apt-get update -q &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            -o DPkg::Lock::Timeout=120 "$@"
}
