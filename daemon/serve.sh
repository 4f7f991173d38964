#!/bin/sh
# 'ninja serve': serves a demo volume with the millraced given as the argument, until Ctrl-C.
# SERVE_LISTEN=ADDRESS chooses where, as --listen takes it.
set -u
millraced=$1
listen=${SERVE_LISTEN:-127.0.0.1:10809}
image=build/demo.img
case $listen in
unix:*) uri="nbd+unix:///demo?socket=${listen#unix:}" ;;
*) uri="nbd://$listen/demo" ;;
esac

# Sparse: it takes space only as clients write to it.
if [ ! -e "$image" ]; then
	truncate -s 1G "$image" || exit 1
	echo "Made $image, 1 GiB, empty."
fi

cat <<EOF
Serving $image as $uri; Ctrl-C stops it.  Try, in another terminal:

  nbdinfo '$uri'
  qemu-img bench -f raw -c 100000 -d 32 -s 4096 '$uri'
  fio --name=demo --ioengine=nbd --uri='$uri' --rw=randrw --bs=4k --iodepth=32 --time_based --runtime=10

EOF
exec "$millraced" --export "demo=$image" --listen "$listen"
