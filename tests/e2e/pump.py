"""Keeps many requests in flight on several libnbd connections, from one thread."""

import select

import nbd

from harness import Failure

READ = nbd.AIO_DIRECTION_READ
WRITE = nbd.AIO_DIRECTION_WRITE
TURN_MS = 200


class Connection:
    """One libnbd handle, and how many of its requests are not answered yet."""

    def __init__(self, uri, index, context=None):
        self.index = index
        self.in_flight = 0
        self.handle = nbd.NBD()
        if context:
            self.handle.add_meta_context(context)
        self.handle.connect_uri(uri)

    def is_alive(self):
        return self.handle.aio_is_ready() or self.handle.aio_is_processing()

    def write(self, data, offset, done, flags=0):
        """Start a write; DONE gets 0 or an errno when it is answered, or when the connection is lost."""
        self.start(self.handle.aio_pwrite, nbd.Buffer.from_bytearray(bytearray(data)), (offset,), done, flags)

    def read(self, count, offset, done):
        """Start a read; DONE gets 0 or an errno, and the bytes."""
        buffer = nbd.Buffer(count)
        self.start(self.handle.aio_pread, buffer, (offset,), lambda error: done(error, buffer.to_bytearray()), 0)

    def trim(self, count, offset, done, flags=0):
        self.start(self.handle.aio_trim, count, (offset,), done, flags)

    def zero(self, count, offset, done, flags=0):
        self.start(self.handle.aio_zero, count, (offset,), done, flags)

    def status(self, count, offset, done):
        """Ask for the extents of the handle's context; DONE gets 0 or an errno, and (length, flags) of each."""
        entries = []

        def extent(_context, _offset, found, _error):
            entries.extend(zip(found[::2], found[1::2]))
            return 0

        self.start(self.handle.aio_block_status, count, (offset, extent), lambda error: done(error, entries), 0)

    def start(self, method, buffer, arguments, done, flags):
        def completion(error):
            self.in_flight -= 1
            done(error.value)
            return 1

        self.in_flight += 1
        try:
            method(buffer, *arguments, completion=completion, flags=flags)
        except nbd.Error:
            self.in_flight -= 1
            if self.is_alive():
                raise

    def notify(self, events):
        try:
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self.handle.aio_notify_read()
            elif events & select.POLLOUT:
                self.handle.aio_notify_write()
        except nbd.Error:
            if self.is_alive():
                raise

    def poll_events(self):
        direction = self.handle.aio_get_direction()
        return (select.POLLIN if direction & READ else 0) | (select.POLLOUT if direction & WRITE else 0)


class Pump:
    """Connections to one export, and a turn that moves all of them on."""

    def __init__(self, uri, count, context=None):
        self.uri = uri
        self.context = context
        self.connections = [Connection(uri, index, context) for index in range(count)]

    def add(self):
        """One connection more."""
        self.connections.append(Connection(self.uri, len(self.connections), self.context))

    def alive(self):
        return [connection for connection in self.connections if connection.is_alive()]

    def in_flight(self):
        return sum(connection.in_flight for connection in self.connections)

    def turn(self):
        """Wait until a socket is ready, and let its connection handle that.  Completions run in here."""
        poller = select.poll()
        by_fd = {}
        for connection in self.alive():
            fd = connection.handle.aio_get_fd()
            by_fd[fd] = connection
            poller.register(fd, connection.poll_events())
        for fd, events in poller.poll(TURN_MS):
            by_fd[fd].notify(events)

    def drain(self):
        """Until every request is answered."""
        while self.in_flight():
            if not self.alive():
                raise Failure("the connections ended with requests in flight")
            self.turn()

    def shutdown(self):
        for connection in self.alive():
            connection.handle.shutdown()
