/** Requests that no decent client sends, and what is to be said to each: once, and then no more. */
import { connect } from 'node:net'

const GET = 'GET /healthz HTTP/1.1\r\nhost: x\r\n'
export const POST = 'POST /healthz HTTP/1.1\r\nhost: x\r\n'
/** What must not be taken for a request of its own. */
const HIDDEN = `${GET}\r\n`

interface OddRequest {
  readonly name: string
  readonly bytes: string
  /** Of the answers; none where the connection is closed without a word. */
  readonly statuses: readonly number[]
}

function line(start: string, status: number): OddRequest {
  return {
    name: start.length > 60 ? `${start.slice(0, 20)}... (${start.length} characters)` : start,
    bytes: `${start} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
    statuses: [status],
  }
}

function odd(name: string, bytes: string, ...statuses: readonly number[]): OddRequest {
  return { name, bytes, statuses }
}

export const ODD_REQUESTS: readonly OddRequest[] = [
  // Paths, as text: nothing is parsed, decoded or looked up in a file system.
  line('GET //', 404),
  line('GET ///', 404),
  line('GET //healthz', 404),
  line('GET //x/healthz', 404),
  line('GET http://[', 404),
  line('GET http://x/healthz', 404),
  line('GET http://x:99999/healthz', 404),
  line('GET file:///etc/passwd', 404),
  line('GET /%zz', 404),
  line('GET /%', 404),
  line('GET /%00', 404),
  line('GET /%68ealthz', 404),
  line('GET /healthz%00', 404),
  line('GET /healthz/', 404),
  line('GET /healthz/.', 404),
  line('GET /healthz;x', 404),
  line('GET /healthz#x', 404),
  line('GET /HEALTHZ', 404),
  line('GET /..', 404),
  line('GET /%2e%2e/etc/passwd', 404),
  line('GET /..%2f..%2fetc/passwd', 404),
  line('GET /../../etc/passwd', 404),
  line('GET /healthz\\..\\x', 404),
  line('GET /__proto__', 404),
  line('GET /constructor', 404),
  line('GET /toString', 404),
  line('GET *', 404),
  line('GET /healthz?x=%zz&__proto__=1', 200),
  line(`GET /healthz?${'x'.repeat(10_000)}`, 200),
  line(`GET /${'x'.repeat(10_000)}`, 404),
  line(`GET /${'x'.repeat(20_000)}`, 431),
  line('GET ?', 400),
  line('GET healthz', 400),
  line('GET', 400),
  odd('NUL in the path', 'GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n', 400),
  odd('bytes beyond ASCII in the path', 'GET /\u00e9 HTTP/1.1\r\nhost: x\r\n\r\n', 400),
  odd('a path with a blank', 'GET /a b HTTP/1.1\r\nhost: x\r\n\r\n', 400),
  // Methods.
  line('OPTIONS *', 405),
  line('TRACE /healthz', 405),
  line('PUT /healthz', 405),
  line('DELETE /', 405),
  line('PATCH /metrics', 405),
  line('PROPFIND /', 405),
  line('FOO /healthz', 400),
  odd('a method in small letters', 'get /healthz HTTP/1.1\r\nhost: x\r\n\r\n', 400),
  odd('CONNECT', 'CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n'),
  // Requests that two servers could understand in two ways.
  odd('two lengths', `${GET}content-length: 1\r\ncontent-length: 2\r\n\r\nab`, 400),
  odd('the same length twice', `${GET}content-length: 2\r\ncontent-length: 2\r\n\r\nab`, 400),
  odd('a list of lengths', `${GET}content-length: 2, 2\r\n\r\nab`, 400),
  odd('a length with a sign', `${GET}content-length: +2\r\n\r\nab`, 400),
  odd('a negative length', `${GET}content-length: -1\r\n\r\n${HIDDEN}`, 400),
  odd('a length in hexadecimal', `${GET}content-length: 0x2\r\n\r\nab`, 400),
  odd('a length beyond all numbers', `${GET}content-length: 99999999999999999999\r\n\r\n`, 400),
  odd('a length and chunks', `${POST}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`, 400),
  odd('chunks and a length', `${POST}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n${HIDDEN}`, 400),
  odd('chunks that are no chunks', `${POST}transfer-encoding: xchunked\r\n\r\n${HIDDEN}`, 400),
  odd('chunks and then more', `${POST}transfer-encoding: chunked, identity\r\n\r\n${HIDDEN}`, 400),
  odd('two transfer encodings', `${POST}transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n${HIDDEN}`, 400),
  odd('a tab before chunked', `${POST}transfer-encoding:\tchunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n${HIDDEN}`, 400),
  odd('a chunk without a size', `${POST}transfer-encoding: chunked\r\n\r\nzz\r\n`, 400),
  odd('a blank before the colon', 'GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n', 400),
  odd('a header over two lines', `${GET}x: a\r\n b\r\n\r\n`, 400),
  odd('a header before all headers', 'GET /healthz HTTP/1.1\r\n host: x\r\n\r\n', 400),
  odd('a header without a name', `${GET}: a\r\n\r\n`, 400),
  odd('lines that end with LF alone', 'GET /healthz HTTP/1.1\nhost: x\n\n', 400),
  odd('one line that ends with LF alone', `${GET}x: a\ny: b\r\n\r\n`, 400),
  odd('CR alone in a header', `${GET}x: a\rb\r\n\r\n`, 400),
  odd('NUL in a header', `${GET}x: a\0b\r\n\r\n`, 400),
  odd('no host', 'GET /healthz HTTP/1.1\r\n\r\n', 400),
  odd('the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400),
  odd('a version that never was', 'GET /healthz HTTP/3.7\r\nhost: x\r\n\r\n', 400),
  odd('a greeting of TLS', '\u0016\u0003\u0001\u0002\0\u0001\0\u0001', 400),
  odd('a header of 17 kB', `${GET}x: ${'y'.repeat(17_000)}\r\n\r\n`, 431),
  odd('a name of a header of 17 kB', `${GET}${'x'.repeat(17_000)}: y\r\n\r\n`, 431),
  odd('headers of 30 kB', `${GET}${`x: ${'y'.repeat(50)}\r\n`.repeat(600)}\r\n`, 431),
  odd('3,000 headers', `${GET}${'abcd: efgh\r\n'.repeat(3_000)}\r\n`, 431),
  odd(
    'a length behind more headers than are looked at',
    `${GET}connection: close\r\n${'a: b\r\n'.repeat(2_500)}content-length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`,
    200,
  ),
  // Bodies: nobody reads them, so what stands in one is no request.
  odd('a request in the body of a GET', `${GET}content-length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`, 200),
  odd('a request after the chunks of a POST', `${POST}transfer-encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`, 405),
  odd('a question whether a body may be sent', `${POST}expect: 100-continue\r\ncontent-length: 9\r\n\r\n`, 405),
  odd('another expectation', `${GET}expect: x\r\nconnection: close\r\n\r\n`, 417),
  // Old and new ways to speak.
  odd('HTTP/0.9', 'GET /healthz\r\n\r\n', 200),
  odd('HTTP/1.0', 'GET /healthz HTTP/1.0\r\n\r\n', 200),
  odd('the wish for a WebSocket', `${GET}connection: upgrade, close\r\nupgrade: websocket\r\n\r\n`, 200),
  odd(
    'the wish for HTTP/2',
    `${GET}connection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n`,
    200,
  ),
]

/** What comes back for these very bytes, until the server closes. */
export function raw({ port }: { readonly port: number }, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
    socket.on('data', (data: Buffer) => (answer += data.toString()))
    socket.on('close', () => resolve(answer))
    socket.on('error', reject)
  })
}

/** The status of each answer in these bytes. */
export function statusesIn(answer: string): readonly number[] {
  return [...answer.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status))
}
