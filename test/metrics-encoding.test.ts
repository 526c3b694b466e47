import assert from 'node:assert/strict'
import { request } from 'node:http'
import test, { type TestContext } from 'node:test'
import { gunzipSync } from 'node:zlib'

import { Registry } from 'prom-client'

import { createExposition } from '../src/io/gauges.js'
import { serveDaemon } from '../src/io/serve-daemon.js'
import { fakeRuntime } from './helpers/fake-runtime.js'

const EDGES = '# TYPE lab7_y gauge\nlab7_y{source="a",destination="b"} 8\n'

async function serving(t: TestContext): Promise<string> {
  const runtime = fakeRuntime([])
  const exit = serveDaemon(
    runtime,
    { command: 'monitor', listenAddress: '127.0.0.1', port: 0, pollIntervalMs: 5_000 },
    () => ({ poll: () => Promise.resolve({ outcome: 'ok', detail: '' }), exposition: () => [Buffer.from(EDGES)] }),
  )
  t.after(async () => {
    runtime.stop()
    await exit
  })
  await runtime.clock.asleep()
  return String(runtime.logged.find(({ msg }) => msg === 'listening')?.['url'])
}

interface Answer {
  readonly coding: string | undefined
  readonly vary: string | undefined
  readonly contentType: string | undefined
  readonly length: number
  readonly body: Buffer
}

/** What comes over the wire: fetch would take the coding off. */
function get(url: string, acceptEncoding: string | null, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = acceptEncoding === null ? {} : { 'accept-encoding': acceptEncoding }
    request(url, { method, headers }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        const {
          vary,
          'content-encoding': coding,
          'content-type': contentType,
          'content-length': length,
        } = response.headers
        resolve({ coding, vary, contentType, length: Number(length), body: Buffer.concat(chunks) })
      })
    })
      .on('error', reject)
      .end()
  })
}

for (const { acceptEncoding, gzip } of [
  { acceptEncoding: 'gzip', gzip: true },
  { acceptEncoding: 'deflate, GZIP;q=0.5', gzip: true },
  { acceptEncoding: 'gzip; q=0.001', gzip: true },
  { acceptEncoding: null, gzip: false },
  { acceptEncoding: '', gzip: false },
  { acceptEncoding: 'identity', gzip: false },
  { acceptEncoding: 'gzip;q=0', gzip: false },
  { acceptEncoding: 'gzip; q=0.000, br', gzip: false },
  { acceptEncoding: 'xgzip', gzip: false },
  { acceptEncoding: '*', gzip: false },
]) {
  test(`metrics encoding: accepting ${JSON.stringify(acceptEncoding)} a scraper gets ${gzip ? 'gzip' : 'plain text'}`, async (t) => {
    const url = `${await serving(t)}/metrics`
    const { coding, vary, contentType, length, body } = await get(url, acceptEncoding)
    assert.deepEqual([coding, vary], [gzip ? 'gzip' : undefined, 'accept-encoding'])
    assert.equal(contentType, 'text/plain; version=0.0.4; charset=utf-8')
    assert.equal(length, body.length)
    const text = (gzip ? gunzipSync(body) : body).toString()
    assert.ok(
      text.includes(EDGES) && text.includes('meshfever_build_info{') && text.includes('\nprocess_cpu_seconds_total '),
    )
    const head = await get(url, acceptEncoding, 'HEAD')
    assert.deepEqual({ ...head, body: '' }, { coding, vary, contentType, length, body: '' })
  })
}

test('metrics encoding: a snapshot is compressed once, however many ask, and the next one anew', async () => {
  const handed = [[Buffer.from('a 1\n')], [Buffer.from('a 2\n')], []]
  const exposition = await createExposition(fakeRuntime([]), new Registry(), () => handed.shift() ?? [])
  const [one, other] = await Promise.all([exposition.readGzipped(), exposition.readGzipped()])
  assert.equal(one, other)
  assert.deepEqual(gunzipSync(one), exposition.read())
  assert.match(exposition.read().toString(), /^a 1$/m)
  await exposition.render()
  const next = await exposition.readGzipped()
  assert.match(gunzipSync(next).toString(), /^a 2$/m)
  assert.equal(await exposition.readGzipped(), next)
})
