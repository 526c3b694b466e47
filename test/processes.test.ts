import assert from 'node:assert/strict'
import type { RequestListener } from 'node:http'
import test, { type TestContext } from 'node:test'

import { samplesNamed } from './helpers/exposition.js'
import { historyAnswer } from './helpers/fake-history.js'
import { vectorAnswer } from './helpers/fake-runtime.js'
import { closedUrl, startHttpServer } from './helpers/local-server.js'
import { runProgram, type RunningProgram, startProgram } from './helpers/program.js'
import { CALM_MS, recordingOf } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const PAIR = { source: 'a', destination: 'b' }

/** How Prometheus behaves, switched by the test; each request is told to whoever waits for it. */
interface SwitchablePrometheus {
  readonly url: string
  behave: Behaviour
  readonly asked: () => Promise<void>
}
type Behaviour = 'down' | 'hanging' | 'dripping' | '503' | 'html' | 'half' | 'good'

async function startPrometheus(t: TestContext): Promise<SwitchablePrometheus> {
  const waiting = new Set<() => void>()
  const good = (query: string): string => {
    const nowMs = Date.now()
    if (query.includes('lab7_anomaly_count')) {
      return historyAnswer(query, { pairs: [PAIR], nowMs, history: () => 0 })
    }
    const newest = { metric: { series: 'sample_timestamp_seconds' }, value: String(nowMs / 1000) }
    return vectorAnswer([{ metric: { quantile: '0.5' }, value: '9.5' }, newest], nowMs / 1000)
  }
  const handler: RequestListener = (request, response) => {
    const body = good(new URL(request.url ?? '', 'http://x').searchParams.get('query') ?? '')
    for (const wake of waiting) wake()
    waiting.clear()
    switch (prometheus.behave) {
      case 'down':
        request.socket.destroy()
        return
      case 'hanging':
        return
      case 'dripping':
        response.write(body.slice(0, 5))
        return
      case '503':
        response.writeHead(503).end('Service Unavailable')
        return
      case 'html':
        response.end('<html>Sign in</html>')
        return
      case 'half':
        response.end(body.slice(0, body.length / 2))
        return
      case 'good':
        response.end(body)
    }
  }
  const { url } = await startHttpServer(t, handler)
  const prometheus: SwitchablePrometheus = {
    url,
    behave: 'good',
    asked: () =>
      new Promise((resolve) => {
        waiting.add(resolve)
      }),
  }
  return prometheus
}

function daemon(
  t: TestContext,
  command: 'monitor' | 'incident',
  prometheusUrl: string,
  more: readonly string[] = [],
): readonly string[] {
  const common = [command, `--prometheus-url=${prometheusUrl}`, '--listen-address=127.0.0.1', '--prometheus-port=0']
  const own =
    command === 'incident'
      ? ['--pair=a:b']
      : ['--service1=a', '--service2=b', `--training-data-file=${temporaryFile(t, recordingOf(CALM_MS))}`]
  return [...common, ...own, ...more]
}

async function listening(program: RunningProgram): Promise<string> {
  return String((await program.logged('where it listens', ({ msg }) => msg === 'listening'))['url'])
}

async function get(url: string): Promise<{ readonly status: number; readonly body: string }> {
  const response = await fetch(url)
  return { status: response.status, body: await response.text() }
}

/** Gauges of ours that hold a value; counters and the verdict may be there without a measurement. */
async function values(url: string): Promise<readonly string[]> {
  const exported = samplesNamed((await get(`${url}/metrics`)).body, 'lab7_')
  return Object.keys(exported).filter((series) => !/^lab7_(\w+_total|verdict)\b/.test(series))
}

const WEATHER: readonly { readonly behave: Behaviour; readonly outcome: string }[] = [
  { behave: 'down', outcome: 'conn' },
  { behave: '503', outcome: 'http_5xx' },
  { behave: 'html', outcome: 'bad_json' },
  { behave: '503', outcome: 'http_5xx' },
  { behave: 'half', outcome: 'bad_json' },
]

for (const command of ['monitor', 'incident'] as const) {
  test(`processes: ${command} outlives every weather, says what it is, and recovers with the next good answer`, async (t) => {
    const prometheus = await startPrometheus(t)
    prometheus.behave = 'down'
    const program = startProgram(t, daemon(t, command, prometheus.url, ['--poll-interval-seconds=0.3']))
    const url = await listening(program)
    for (const { behave, outcome } of WEATHER) {
      prometheus.behave = behave
      await program.logged(
        `${behave} as ${outcome}`,
        (line) => line['msg'] === 'polls fail' && line['outcome'] === outcome,
      )
      const [health, ready] = await Promise.all([get(`${url}/healthz`), get(`${url}/readyz`)])
      assert.deepEqual([health.status, ready.status], [200, 503], behave)
      assert.deepEqual(await values(url), [], behave)
    }
    prometheus.behave = 'good'
    await program.logged('that it recovered', ({ msg }) => msg === 'polls succeed again')
    await prometheus.asked() // the poll after that: the recovered one is published by now
    assert.equal((await get(`${url}/readyz`)).status, 200)
    assert.notDeepEqual(await values(url), [])
    for (const behave of ['hanging', 'dripping'] as const) {
      prometheus.behave = behave
      await program.logged(
        `${behave} as timeout`,
        (line) => line['msg'] === 'polls fail' && line['outcome'] === 'timeout',
      )
      assert.equal((await get(`${url}/healthz`)).status, 200)
      prometheus.behave = 'good'
      await program.logged('that it recovered', ({ msg }) => msg === 'polls succeed again')
    }
    program.kill('SIGTERM')
    const { code, signal, stderr } = await program.exit
    assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' })
  })

  for (const { name, behave, signal } of [
    { name: 'in the middle of a poll that hangs', behave: 'hanging', signal: 'SIGTERM' },
    { name: 'in the middle of a poll that drips', behave: 'dripping', signal: 'SIGINT' },
    { name: 'while it sleeps', behave: 'good', signal: 'SIGTERM' },
  ] as const) {
    test(`processes: ${command} ends with 0 within a second of ${signal} ${name}`, async (t) => {
      const prometheus = await startPrometheus(t)
      prometheus.behave = behave
      const asked = prometheus.asked()
      const program = startProgram(t, daemon(t, command, prometheus.url, ['--poll-interval-seconds=60']))
      if (behave === 'good') {
        const polled = /^evaluated$|^No incident detected$/
        await program.logged('its first poll', ({ msg }) => polled.test(String(msg)))
      } else await asked
      const startMs = performance.now()
      program.kill(signal)
      const exit = await program.exit
      const tookMs = performance.now() - startMs
      assert.deepEqual([exit.code, exit.signal, exit.stderr], [0, null, ''])
      assert.ok(tookMs < 1_000, `${tookMs.toFixed(0)} ms`)
      assert.equal((JSON.parse(exit.stdout.trim().split('\n').at(-1) ?? '') as { msg: string }).msg, 'stopped')
      assert.doesNotMatch(exit.stdout, /polls fail/)
    })
  }

  test(`processes: ${command} ends with 1 and one line when its port is in use`, async (t) => {
    const { port, url } = await startHttpServer(t, (_request, response) => response.end())
    const args = daemon(t, command, url).filter((arg) => arg !== '--prometheus-port=0')
    const exit = await runProgram(t, [...args, `--prometheus-port=${port}`])
    assert.deepEqual(
      [exit.code, exit.stderr],
      [1, `meshfever: cannot listen on 127.0.0.1:${port}: the port is in use\n`],
    )
  })

  test(`processes: ${command} --check needs no Prometheus, serves nothing and ends with 0`, async (t) => {
    const exit = await runProgram(t, [...daemon(t, command, await closedUrl()), '--check'])
    assert.deepEqual([exit.code, exit.stderr], [0, ''])
    assert.doesNotMatch(exit.stdout, /listening/)
    assert.match(exit.stdout, command === 'monitor' ? /"msg":"baseline fitted"/ : /"msg":"timing contract: /)
  })
}
