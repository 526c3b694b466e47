import type { Socket } from 'node:net'
import { constants, inflateSync } from 'node:zlib'

/**
 * As much of SPDY/3.1 as `kubectl port-forward` speaks: the client opens streams, both sides send data. Of the draft at
 * chromium.org/spdy; header blocks are compressed with a dictionary that both sides know.
 */

const words = (texts: readonly string[]): string =>
  texts.map((text) => `\0\0\0${String.fromCharCode(text.length)}${text}`).join('')

const DICTIONARY = Buffer.from(
  words([
    ...['options', 'head', 'post', 'put', 'delete', 'trace', 'accept', 'accept-charset', 'accept-encoding'],
    ...['accept-language', 'accept-ranges', 'age', 'allow', 'authorization', 'cache-control', 'connection'],
    ...['content-base', 'content-encoding', 'content-language', 'content-length', 'content-location', 'content-md5'],
    ...['content-range', 'content-type', 'date', 'etag', 'expect', 'expires', 'from', 'host', 'if-match'],
    ...['if-modified-since', 'if-none-match', 'if-range', 'if-unmodified-since', 'last-modified', 'location'],
    ...['max-forwards', 'pragma', 'proxy-authenticate', 'proxy-authorization', 'range', 'referer', 'retry-after'],
    ...['server', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'user-agent', 'vary', 'via', 'warning'],
    ...['www-authenticate', 'method', 'get', 'status', '200 OK', 'version', 'HTTP/1.1', 'url', 'public'],
    ...['set-cookie', 'keep-alive', 'origin'],
  ]) +
    '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505' +
    '203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized' +
    '403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable' +
    'Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT' +
    'chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,' +
    'text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.',
  'latin1',
)

const CONTROL = 0x8003
const SYN_STREAM = 1
const SYN_REPLY = 2
const PING = 6
const FIN = 1

export interface SpdyStream {
  readonly headers: Readonly<Record<string, string>>
  readonly write: (data: Buffer) => void
  readonly end: () => void
  onData: (data: Buffer) => void
  onEnd: () => void
}

/** Serves one connection after its HTTP upgrade. */
export function serveSpdy(socket: Socket, onStream: (stream: SpdyStream) => void): void {
  const streams = new Map<number, SpdyStream>()
  let received = Buffer.alloc(0)
  // All header blocks of a connection are one zlib stream: each is what inflating all of them gives more than before.
  let compressed = Buffer.alloc(0)
  let inflatedBytes = 0
  let replied = false

  const readHeaders = (block: Buffer): Readonly<Record<string, string>> => {
    compressed = Buffer.concat([compressed, block])
    const all = inflateSync(compressed, { dictionary: DICTIONARY, finishFlush: constants.Z_SYNC_FLUSH })
    const plain = all.subarray(inflatedBytes)
    inflatedBytes = all.length
    const headers: Record<string, string> = {}
    let at = 4
    const text = (): string => {
      const length = plain.readUInt32BE(at)
      at += 4 + length
      return plain.toString('latin1', at - length, at)
    }
    for (let left = plain.readUInt32BE(0); left > 0; left--) {
      const name = text()
      headers[name] = text()
    }
    return headers
  }
  /** No headers at all, as stored blocks of a zlib stream that names the dictionary at its start. An empty one is a flush. */
  const emptyHeaders = (): Buffer => {
    const stored = Buffer.from([0x00, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0x00, 0, 0, 0xff, 0xff])
    const start = replied ? [] : [Buffer.from([0x78, 0xbb]), adler32(DICTIONARY)]
    replied = true
    return Buffer.concat([...start, stored])
  }
  const control = (type: number, payload: Buffer): void => {
    const head = Buffer.alloc(8)
    head.writeUInt16BE(CONTROL, 0)
    head.writeUInt16BE(type, 2)
    head.writeUInt32BE(payload.length, 4)
    socket.write(Buffer.concat([head, payload]))
  }
  const data = (id: number, payload: Buffer, flags: number): void => {
    const head = Buffer.alloc(8)
    head.writeUInt32BE(id, 0)
    head.writeUInt32BE(flags * 2 ** 24 + payload.length, 4)
    socket.write(Buffer.concat([head, payload]))
  }
  const open = (id: number, headers: Readonly<Record<string, string>>): void => {
    const number = Buffer.alloc(4)
    number.writeUInt32BE(id)
    control(SYN_REPLY, Buffer.concat([number, emptyHeaders()]))
    const stream: SpdyStream = {
      headers,
      write: (payload) => data(id, payload, 0),
      end: () => data(id, Buffer.alloc(0), FIN),
      onData: () => undefined,
      onEnd: () => undefined,
    }
    streams.set(id, stream)
    onStream(stream)
  }
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk])
    while (received.length >= 8) {
      const length = received.readUIntBE(5, 3)
      if (received.length < 8 + length) return
      const flags = received.readUInt8(4)
      const payload = received.subarray(8, 8 + length)
      if (received.readUInt16BE(0) === CONTROL) {
        const type = received.readUInt16BE(2)
        if (type === SYN_STREAM) open(payload.readUInt32BE(0), readHeaders(payload.subarray(10)))
        if (type === PING) control(PING, payload)
      } else {
        const stream = streams.get(received.readUInt32BE(0))
        if (payload.length > 0) stream?.onData(payload)
        if (flags === FIN) stream?.onEnd()
      }
      received = received.subarray(8 + length)
    }
  })
}

function adler32(bytes: Buffer): Buffer {
  let a = 1
  let b = 0
  for (const byte of bytes) {
    a = (a + byte) % 65_521
    b = (b + a) % 65_521
  }
  const sum = Buffer.alloc(4)
  sum.writeUInt16BE(b, 0)
  sum.writeUInt16BE(a, 2)
  return sum
}
