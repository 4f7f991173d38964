#!/bin/sh
# tests/install_library.sh ROOT PREFIX VERSION COMPILER: is what 'ninja install' put below ROOT (its DESTDIR) what a user
# of the library needs?  Compiles each of its headers alone and the examples, far from this tree and with the flags that
# pkg-config tells, links the examples, and runs them.
# 'N passed, N failed' goes to build/test-counts/library too.  Exits 1 if something failed.
set -u
root=$1
prefix=$2
version=$3
compiler=$4
examples=$PWD/doc/examples
counts=$PWD/build/test-counts/library
passed=0
failed=0

mkdir -p build/test-counts || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1

# step NAME COMMAND...: counts whether COMMAND succeeds; its output is shown if it does not.
step()
{
	name=$1
	shift
	if "$@" >output 2>&1; then
		passed=$((passed + 1))
		echo "ok   $name"
	else
		failed=$((failed + 1))
		echo "FAIL $name"
		sed 's/^/     | /' output
	fi
}

# The library as if it were in PREFIX: --define-variable is what a DESTDIR needs, users do without.
# pkg-config must not find another one that this machine has.
package()
{
	PKG_CONFIG_LIBDIR=$root$prefix/lib/pkgconfig PKG_CONFIG_PATH='' \
		pkg-config --define-variable=prefix="$root$prefix" "$@" millrace-reactor
}

# The prefix that users get, and what else they are told.
describes()
{
	[ "$(PKG_CONFIG_PATH='' PKG_CONFIG_LIBDIR=$root$prefix/lib/pkgconfig \
		pkg-config --variable=prefix millrace-reactor)" = "$prefix" ] &&
		[ "$(package --modversion)" = "$version" ] && package --validate
}

# $compiler and $warnings, like the flags, are several words; so this works in no directory with a space in its name.
warnings='-Wall -Wextra -Werror'

header_compiles()
{
	printf '#include "reactor/%s"\n' "$1" >header.c
	$compiler $warnings $(package --cflags) -fsyntax-only header.c
}

example_links()
{
	cp "$examples/$1.c" . && $compiler $warnings $(package --cflags) -o "$1" "$1.c" $(package --libs --static) $2
}

# timeout: one that does not stop is a failure too.
says_hello()
{
	timeout 10 "./hello_timer" >hellos && cat hellos &&
		printf 'hello %s from core 0\n' 1 2 3 | cmp - hellos
}

# What is sent to it comes back, and is in the file.
echoes()
{
	/usr/bin/python3 - ./echo "$PWD/echoed" <<-'END'
		import socket, subprocess, sys, time

		with socket.socket() as free:
		    free.bind(("127.0.0.1", 0))
		    port = free.getsockname()[1]
		server = subprocess.Popen([sys.argv[1], str(port), sys.argv[2]])
		try:
		    for attempt in range(100):
		        try:
		            client = socket.create_connection(("127.0.0.1", port), 5)
		            break
		        except ConnectionRefusedError:
		            time.sleep(0.05)
		    clients = [client] + [socket.create_connection(("127.0.0.1", port), 5) for i in range(20)]
		    for number, client in enumerate(clients):
		        client.sendall(b"line %02d\n" % number)
		    for number, client in enumerate(clients):
		        assert client.recv(100) == b"line %02d\n" % number, number
		        client.close()
		    with open(sys.argv[2], "rb") as file:
		        lines = sorted(file.read().split(b"\n")[:-1])
		    assert lines == [b"line %02d" % number for number in range(len(clients))], lines
		    assert server.poll() is None, "it has ended"
		finally:
		    server.kill()
		    server.wait()
	END
}

step 'pkg-config describes it' describes
for header in "$root$prefix"/include/millrace/reactor/*.h; do
	step "$(basename "$header") compiles" header_compiles "$(basename "$header")"
done
for example in "$examples"/*.c; do
	step "$(basename "$example") links" example_links "$(basename "$example" .c)" ''
done
step 'hello_timer says hello' says_hello
step 'echo answers and appends' echoes
# The library calls jemalloc's functions where there are any.
step 'hello_timer links with jemalloc' example_links hello_timer '-Wl,--no-as-needed -ljemalloc'
step 'hello_timer says hello with jemalloc' says_hello

echo "$passed passed, $failed failed" | tee "$counts"
[ "$failed" -eq 0 ]
