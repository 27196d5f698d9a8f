# What the tests and the benchmark need from the machine; sourced by ./test and by
# bench/beside-pgbouncer, from the repository's root.
#
# On Debian, as root, missing packages are installed; elsewhere it says what is missing and
# ends with status 2. What is fetched for one program alone stays under target/.

target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target"

say() { printf '\n== %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

# Ends the run, saying what to install.
missing() {
  printf '%s\n' "$@" >&2
  exit 2
}

lists=old
apt_update() {
  if [ "$lists" = old ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    lists=new
  fi
}

# Installs packages of Debian's.
install() {
  if [ "$(id -u)" = 0 ] && has apt-get; then
    say "Installing $*"
    apt_update
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
  else
    missing "Not there: $* (the names of Debian's packages)." \
      "Install them, or run $0 as root on Debian or Ubuntu; then run it again."
  fi
}

# Debian keeps PostgreSQL's programs outside PATH, in a folder for each version.
postgres_bindir() {
  local folder
  for folder in "$(dirname "$(command -v postgres || echo /nowhere/x)")" \
    /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /usr/pgsql-*/bin \
    /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null)"; do
    if [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ] && [ -x "$folder/pgbench" ]; then
      echo "$folder"
    fi
  done | tail -n 1
}

# A compiler, PostgreSQL, Python and nginx.
need_tools() {
  has cargo || missing "Not there: cargo." \
    "Install Rust 1.90 or later from https://rustup.rs, then run $0 again."
  local packages=()
  has cc || packages+=(build-essential)
  has python3 || packages+=(python3)
  python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages+=(python3-venv)
  [ -n "$(postgres_bindir)" ] || packages+=(postgresql)
  has psql || packages+=(postgresql-client)
  [ -n "$(PATH=$PATH:/usr/sbin command -v nginx)" ] || packages+=(nginx)
  [ ${#packages[@]} -eq 0 ] || install "${packages[@]}"
  FOREBAY_TEST_PG_BINDIR=$(postgres_bindir)
  export FOREBAY_TEST_PG_BINDIR
  venv="$target/venv"
  node="$target/node"
  export FOREBAY_TEST_NODE="$node"
}

# The drivers, in target/venv and target/node. Versions and hashes are pinned; what is there
# stays until they change.
need_drivers() {
  local wanted
  wanted=$(cat tests/drivers/requirements.txt; python3 --version)
  if [ "$wanted" != "$(cat "$venv/made-for" 2>/dev/null)" ]; then
    say "Fetching the drivers for Python into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --require-hashes \
      -r tests/drivers/requirements.txt
    printf '%s\n' "$wanted" >"$venv/made-for"
  fi
  need_node
  wanted=$(cat tests/drivers/tours/node/package-lock.json; "$node/bin/node" --version)
  if [ "$wanted" != "$(cat "$node/made-for" 2>/dev/null)" ]; then
    say "Fetching the drivers for Node.js into $node"
    cp tests/drivers/tours/node/package*.json "$node/"
    (cd "$node" && PATH="$node/bin:$PATH" npm ci --silent --ignore-scripts --no-audit --no-fund)
    printf '%s\n' "$wanted" >"$node/made-for"
  fi
}

# Node.js with npm: the machine's own, else from PyPI, where no other rights are needed.
need_node() {
  mkdir -p "$node/bin"
  local from
  if has node && has npm; then
    from=$(command -v node)
  else
    from="$venv/bin/node"
    if [ ! -x "$from" ]; then
      say "Fetching Node.js into $venv"
      "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --require-hashes \
        -r tests/drivers/requirements-node.txt
    fi
    ln -sf "$venv/bin/npm" "$node/bin/npm"
  fi
  ln -sf "$from" "$node/bin/node"
}

# The drivers of other languages, from Debian; what is built of their tours stays in target/.
need_other_drivers() {
  local packages=()
  has javac || packages+=(default-jdk-headless)
  [ -f /usr/share/java/postgresql.jar ] || packages+=(libpostgresql-jdbc-java)
  [ -f /usr/share/java/HikariCP.jar ] || packages+=(libhikaricp-java)
  has go || packages+=(golang-go)
  [ -d "$gocode/src/github.com/jackc/pgx/v4" ] || packages+=(golang-github-jackc-pgx-v4-dev)
  [ -d "$gocode/src/github.com/lib/pq" ] || packages+=(golang-github-lib-pq-dev)
  ruby -e 'require "active_record"; require "pg"' 2>/dev/null ||
    packages+=(ruby-activerecord ruby-pg)
  perl -e 'use DBD::Pg' 2>/dev/null || packages+=(libdbd-pg-perl)
  [ ${#packages[@]} -eq 0 ] || install "${packages[@]}"

  say "Building the tours in Java and Go"
  FOREBAY_TEST_TOURS="$target/tours"
  FOREBAY_TEST_JARS=/usr/share/java/postgresql.jar:/usr/share/java/HikariCP.jar
  FOREBAY_TEST_JARS+=:/usr/share/java/slf4j-api.jar
  export FOREBAY_TEST_TOURS FOREBAY_TEST_JARS
  mkdir -p "$FOREBAY_TEST_TOURS"
  javac -cp "$FOREBAY_TEST_JARS" -d "$FOREBAY_TEST_TOURS" tests/drivers/tours/java/Tour.java
  GO111MODULE=off GOPATH="$gocode" GOCACHE="$FOREBAY_TEST_TOURS/go-cache" \
    go build -o "$FOREBAY_TEST_TOURS/go" tests/drivers/tours/go/tour.go
}
gocode=/usr/share/gocode

# promtool reads /metrics as Prometheus would. Only the program is taken from its package:
# nothing is installed or started.
need_promtool() {
  FOREBAY_TEST_PROMTOOL=$(command -v promtool || echo "$target/tools/usr/bin/promtool")
  export FOREBAY_TEST_PROMTOOL
  if [ ! -x "$FOREBAY_TEST_PROMTOOL" ] && has apt-get; then
    say "Fetching promtool"
    apt_update
    rm -rf "$target/tools/fetch"
    mkdir -p "$target/tools/fetch"
    # apt fetches as a user of its own where it can.
    chmod 777 "$target/tools/fetch"
    (cd "$target/tools/fetch" && apt-get download -qq prometheus &&
      dpkg-deb -x prometheus_*.deb "$target/tools") || true
    rm -rf "$target/tools/fetch"
  fi
  [ -x "$FOREBAY_TEST_PROMTOOL" ] || missing "Not there: promtool." \
    "Install Prometheus (Debian: apt-get install prometheus), then run $0 again."
}
