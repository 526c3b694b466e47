import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { after, before, type TestContext } from 'node:test'

import { parseCommandLine } from '../src/commands/command-line.js'
import { recordCommand } from '../src/commands/record.js'
import { latencyAndTraffic } from '../src/core/promql.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { impatientRuntime } from './helpers/fake-range-prometheus.js'
import { type FilledPrometheus, istioHistory, startFilledPrometheus } from './helpers/filled-prometheus.js'
import { startHttpServer } from './helpers/local-server.js'
import { PROGRAM, runProgram, startProgram } from './helpers/program.js'
import { noPromtool } from './helpers/promtool.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/** A multiple of a minute. Five days and more of a scrape a minute; at 15 s a step that is 31,201 samples. */
const START = 1_699_999_980
const END = START + 468_000
const WINDOW = '4m'

/** By the number of the scrape: an incident of 20 minutes, and one of which one scrape saw anything. */
const hot = (scrape: number): boolean => (scrape >= 3_000 && scrape < 3_020) || scrape === 5_000

const HOSTILE = [
  ['a-b', 'c'],
  ['a', 'b-c'],
  ['../../etc', 'passwd'],
  ['x"} or vector(1) #', 'back\\slash'],
  ['new\nline', '\u001b[31mred'],
] as const

const skip = noPromtool()
let prometheus: FilledPrometheus
/** The file that a run over LONG makes which nothing disturbs. */
let undisturbed: string

before(async () => {
  if (skip !== false) return
  const labels = (source: string, destination: string): Readonly<Record<string, string>> => ({
    reporter: 'source',
    source_app: source,
    destination_app: destination,
  })
  const day = (time: number): number => 1 + 0.5 * Math.sin((2 * Math.PI * time) / 86_400)
  const history = { startSeconds: START, scrapeSeconds: 60, requestsPerSecond: (time: number) => 10 * day(time) }
  const scrapes = (END - START) / 60 + 1
  prometheus = await startFilledPrometheus([
    ...istioHistory(labels('frontend', 'cartservice'), {
      ...history,
      scrapes,
      latencyMs: (time) => 8 * day(time) * (1 + 0.1 * Math.sin(time * 12.9898)),
    }),
    ...[...HOSTILE, ['unknown', 'c'] as const].flatMap(([source, destination], i) =>
      istioHistory(labels(source, destination), { ...history, scrapes: 120, latencyMs: () => 10 * (i + 1) }),
    ),
    {
      name: 'lab7_incident_temperature',
      labels: { instance: 'incident:8083' },
      samples: Array.from({ length: scrapes }, (_, i) => [START + 60 * i, hot(i) ? 8 : 0] as const),
    },
  ])
  undisturbed = join(mkdtempSync(join(tmpdir(), 'meshfever-test-')), 'out.json')
  assert.equal(await recordedHere(recordArgs(prometheus.url, undisturbed)), 0)
})

after(async () => {
  if (skip !== false) return
  rmSync(dirname(undisturbed), { recursive: true })
  await prometheus.stop()
})

/** The command without a process of its own, whose pauses take no time. */
function recordedHere(args: readonly string[]): Promise<number> {
  const parsed = parseCommandLine({ args, environment: {}, commands: [recordCommand], version: '1' })
  return parsed.kind === 'job' ? parsed.job.run(impatientRuntime(Date.now())) : Promise.reject(new Error('no job'))
}

const LONG = ['--from', String(START), '--to', String(END), '--query-window', WINDOW]

function recordArgs(url: string, output: string, ...args: readonly string[]): readonly string[] {
  return [
    ...['record', '--service1', 'frontend', '--service2', 'cartservice', '--prometheus-url', url],
    ...[...LONG, '--output', output, ...args],
  ]
}

interface Saved {
  readonly data: {
    readonly result: readonly { readonly metric: object; readonly values: readonly [number, string][] }[]
  }
  readonly meshfever: { readonly left_out: readonly (readonly [number, number])[] }
}

function savedIn(path: string): Saved {
  return JSON.parse(readFileSync(path, 'utf8')) as Saved
}

/** All but the time at which it was recorded. */
function timeless(path: string): string {
  return readFileSync(path, 'utf8').replace(/"recorded_at":"[^"]+"/, '')
}

interface Proxy {
  readonly url: string
  /** Starts of the range queries for latency that came through. */
  readonly starts: () => readonly number[]
  /** Resolves when the nth such query waits at the proxy, which it then does until the proxy is gone. */
  readonly held: Promise<void>
}

/** Stands before Prometheus, and holds the nth range query for latency: the first that comes for that chunk, no other. */
async function startProxy(t: TestContext, holdNth = Infinity, atHold?: () => Promise<void>): Promise<Proxy> {
  const starts: number[] = []
  let tell = (): void => undefined
  const held = new Promise<void>((resolve) => {
    tell = resolve
  })
  const { url } = await startHttpServer(t, (request, response) => {
    const forward = (): void => {
      const { host, port } = { host: '127.0.0.1', port: new URL(prometheus.url).port }
      const onward = httpRequest({ host, port, path: request.url, method: request.method }, (answer) => {
        response.writeHead(answer.statusCode ?? 500)
        answer.pipe(response)
      })
      onward.on('error', () => response.destroy())
      onward.end()
    }
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://proxy')
    const latency = pathname === '/api/v1/query_range' && searchParams.get('query')?.includes('histogram_quantile')
    if (latency === true && starts.push(Number(searchParams.get('start'))) === holdNth) {
      tell()
      if (atHold !== undefined) void atHold().then(forward)
      return
    }
    forward()
  })
  return { url, starts: () => starts, held }
}

test(
  'record, real Prometheus: 31,201 samples in three chunks are what as many single queries give',
  { skip },
  async (t) => {
    const path = join(temporaryFolder(t), 'out.json')
    const proxy = await startProxy(t)
    const done = await runProgram(t, recordArgs(proxy.url, path, '--despite-incident', '--quantile', '0.5,0.95'))
    assert.deepEqual([done.code, done.stderr], [0, ''])
    assert.deepEqual(proxy.starts(), [START, START + 165_000, START + 330_000])
    const { result } = savedIn(path).data
    assert.deepEqual(
      result.map(({ metric, values }) => [metric, values.length]),
      [
        // The first rate needs two scrapes.
        [{ quantile: '0.5' }, 31_201 - 4],
        [{ quantile: '0.95' }, 31_201 - 4],
        [{ series: 'requests_per_second' }, 31_201 - 4],
      ],
    )
    const union = new Map<string, [number, string][]>()
    const query = latencyAndTraffic({
      pair: { source: 'frontend', destination: 'cartservice' },
      sourceLabel: 'source_app',
      destinationLabel: 'destination_app',
      reporter: 'source',
      window: WINDOW,
      quantiles: [0.5, 0.95],
    })
    for (let start = START; start <= END; start += 15 * 4_000) {
      const end = Math.min(END, start + 15 * 3_999)
      const body = new URLSearchParams({ query, start: String(start), end: String(end), step: '15' })
      const response = await fetch(`${prometheus.url}/api/v1/query_range`, { method: 'POST', body })
      for (const { metric, values } of ((await response.json()) as Saved).data.result) {
        const key = JSON.stringify(metric)
        union.set(key, [...(union.get(key) ?? []), ...values])
      }
    }
    assert.deepEqual(
      result,
      [...union].map(([metric, values]) => ({ metric: JSON.parse(metric) as object, values })),
    )
    // And a monitor can be trained on it.
    const { series } = readRecordingFile(path, 'F')
    assert.deepEqual(
      series.map(({ quantile, requestsPerSecond }) => [quantile, requestsPerSecond?.length]),
      [
        [0.5, 31_197],
        [0.95, 31_197],
      ],
    )
  },
)

for (const { signal, code, stderr } of [
  { signal: 'SIGKILL', code: null, stderr: /^$/ },
  {
    signal: 'SIGINT',
    code: 1,
    stderr:
      /^meshfever: not all recorded: stopped; what was fetched until then is kept, as partial, in \S+\/out\.json\.partial\.ndjson, and the same command goes on from there\n$/,
  },
] as const) {
  test(
    `record, real Prometheus: after a ${signal} in the middle the same command makes the file of an undisturbed run`,
    { skip },
    async (t) => {
      const folder = temporaryFolder(t)
      const path = join(folder, 'out.json')
      const proxy = await startProxy(t, 3)
      const program = startProgram(t, recordArgs(proxy.url, path))
      await proxy.held
      program.kill(signal)
      const ended = await program.exit
      assert.deepEqual([ended.code, ended.signal], [code, code === null ? signal : null])
      assert.match(ended.stderr, stderr)
      assert.deepEqual(readdirSync(folder), ['out.json.partial.ndjson'])

      const again = await runProgram(t, recordArgs(proxy.url, path))
      assert.deepEqual([again.code, again.stderr], [0, ''])
      assert.match(again.stdout, /"msg":"going on with an unfinished recording, over the range that it was begun with"/)
      assert.deepEqual(proxy.starts(), [START, START + 165_000, START + 330_000, START + 330_000])
      assert.deepEqual(readdirSync(folder), ['out.json'])

      assert.equal(timeless(path), timeless(undisturbed))
    },
  )
}

test('record, real Prometheus: what incidents made is not in the file, and everything else is', { skip }, async (t) => {
  const [calm, all] = [undisturbed, join(temporaryFolder(t), 'all.json')]
  assert.equal(await recordedHere(recordArgs(prometheus.url, all, '--despite-incident')), 0)
  // A gauge holds until the next scrape, and the window of four minutes looks back on it: to 45 s after the last hot scrape,
  // and 240 s behind that.
  const leftOut = [
    [START + 60 * 3_000, START + 60 * 3_019 + 45 + 240],
    [START + 60 * 5_000, START + 60 * 5_000 + 45 + 240],
  ] as const
  assert.deepEqual(savedIn(calm).meshfever.left_out, leftOut)
  assert.deepEqual(savedIn(all).meshfever.left_out, [])
  const outside = ([time]: readonly [number, string]): boolean =>
    !leftOut.some(([from, to]) => time >= from && time <= to)
  assert.deepEqual(
    savedIn(calm).data.result,
    savedIn(all).data.result.map(({ metric, values }) => ({ metric, values: values.filter(outside) })),
  )
  assert.equal(savedIn(all).data.result[0]!.values.length - savedIn(calm).data.result[0]!.values.length, 96 + 20)
})

test(
  'record, real Prometheus: --all-pairs records each pair under a name of its own, however hostile it is',
  { skip },
  async (t) => {
    const output = join(temporaryFolder(t), 'all', 'of', 'them')
    const done = await runProgram(t, [
      ...['record', '--all-pairs', '--prometheus-url', prometheus.url, '--output', output, '--query-window', WINDOW],
      ...['--from', String(START), '--to', String(START + 7_140)],
    ])
    assert.deepEqual([done.code, done.stderr], [0, ''])
    assert.match(
      done.stdout,
      /"pairs":\["unknown -> c"\],"msg":"pairs with a side that Istio does not know were left out"/,
    )
    const files = readdirSync(output)
    assert.deepEqual(files.sort(), [
      '%2E.%2F..%2Fetc-passwd.json',
      'a-b-c.json',
      'a-b-c~2.json',
      'frontend-cartservice.json',
      'new%0Aline-%1B%5B31mred.json',
      'x%22%7D%20or%20vector(1)%20%23-back%5Cslash.json'.replace('(', '%28').replace(')', '%29'),
    ])
    const recorded = files.map((file) => {
      const document = JSON.parse(readFileSync(join(output, file), 'utf8')) as {
        readonly meshfever: { readonly pair: { readonly source: string; readonly destination: string } }
      }
      const { latenciesMs = [] } = readRecordingFile(join(output, file), 'F').series[0] ?? {}
      const { source, destination } = document.meshfever.pair
      return [source, destination, latenciesMs.length, Math.round(Math.log2((latenciesMs[100] ?? NaN) / 10) * 10) / 10]
    })
    // Each pair's own latency, as far as its bucket tells.
    assert.deepEqual(
      recorded
        .filter(([source]) => source !== 'frontend')
        .map(([source, destination, samples]) => [source, destination, samples]),
      [
        ['../../etc', 'passwd', 473],
        ['a', 'b-c', 473],
        ['a-b', 'c', 473],
        ['new\nline', '\u001b[31mred', 473],
        ['x"} or vector(1) #', 'back\\slash', 473],
      ],
    )
    assert.equal(new Set(recorded.map(([, , , level]) => level)).size, 6)
  },
)

test(
  'record, real Prometheus: on a full disk what was fetched is kept, and with more room the same command goes on',
  { skip },
  async (t) => {
    const folder = temporaryFolder(t)
    const disk = join(folder, 'disk')
    mkdirSync(disk)
    if (spawnSync('unshare', ['-Urm', 'mount', '-t', 'tmpfs', 'none', disk]).status !== 0) {
      t.skip('no file system of our own can be mounted here')
      return
    }
    const args = recordArgs(prometheus.url, join(disk, 'out.json'))
    // Room for the first chunk; then for all; then, on another disk, for less than one chunk, and for less than one file.
    const script = `
      mount -t tmpfs -o size=1200k none ${disk} && "$@"; echo "exit $?"; ls ${disk}
      mount -o remount,size=20m ${disk} && "$@"; echo "exit $?"; ls ${disk}; cp ${disk}/out.json ${folder}
      umount ${disk}; mount -t tmpfs -o size=200k none ${disk} && "$@"; echo "exit $?"; ls ${disk}
      "$@" --step-seconds 60; echo "exit $?"; ls ${disk}`
    const child = spawn('unshare', ['-Urm', 'sh', '-c', script, 'sh', process.execPath, PROGRAM, ...args], {
      env: { PATH: process.env['PATH'] ?? '' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
    await new Promise((resolve) => child.once('close', resolve))
    assert.deepEqual(
      stdout.split('\n').filter((line) => !line.startsWith('{')),
      ['exit 1', 'out.json.partial.ndjson', 'exit 0', 'out.json', 'exit 1', 'exit 1', ''],
    )
    assert.match(stdout, /"chunks":1,"msg":"going on with an unfinished recording/)
    const [first = '', second = '', third = ''] = stderr.split('\n')
    assert.match(
      first,
      /^meshfever: not all recorded: cannot write \S+\/disk\/out\.json\.partial\.ndjson: ENOSPC: no space left on device, write; what was fetched until then is kept, as partial, in \S+, and the same command goes on from there$/,
    )
    for (const [line, file] of [
      [second, 'out.json.partial.ndjson'],
      [third, 'out.json'],
    ] as const) {
      assert.equal(
        line,
        `meshfever: nothing recorded: cannot write ${disk}/${file}: ENOSPC: no space left on device, write`,
      )
    }
    assert.equal(timeless(join(folder, 'out.json')), timeless(undisturbed))
  },
)

test('record, real Prometheus: on a real terminal the bar goes away for the lines that stay', { skip }, (t) => {
  if (spawnSync('script', ['--version']).status !== 0) {
    t.skip('script is not on the PATH')
    return
  }
  const path = join(temporaryFolder(t), 'out.json')
  const command = [process.execPath, PROGRAM, ...recordArgs(prometheus.url, path)].map((arg) => `'${arg}'`).join(' ')
  const { stdout, status } = spawnSync('script', ['-qec', command, '/dev/null'], { encoding: 'utf8' })
  assert.equal(status, 0)
  const [bars = '', ...lines] = stdout.split('\r\n')
  assert.deepEqual(
    [...bars.matchAll(/\[[#-]{20}\] +\d+ % {2}\d\/3 chunks/g)].map(([bar]) => bar),
    [
      '[--------------------]   0 %  0/3 chunks',
      '[#######-------------]  35 %  1/3 chunks',
      '[##############------]  70 %  2/3 chunks',
      '[####################] 100 %  3/3 chunks',
    ],
  )
  assert.ok(bars.endsWith(`\r\u001b[Kfrontend -> cartservice: saved to ${path}`), bars)
  assert.deepEqual(
    lines.map((line) => line.split(/[:;]/)[0]),
    [
      '  range',
      '  left out because of incidents',
      '  p50',
      '  traffic',
      '  time of day',
      '  Good enough to train load-and-season on.',
      '',
    ],
  )
})

// The last one: nobody is left to ask after it.
test('record, real Prometheus: one that is killed in the middle leaves what it gave', { skip }, async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'out.json')
  const proxy = await startProxy(t, 2, () => prometheus.kill())
  await assert.rejects(recordedHere(recordArgs(proxy.url, path)), {
    name: 'StartError',
    message:
      /^not all recorded: Prometheus at http:\/\/127\.0\.0\.1:\d+: socket hang up \(asked 4 times\); what was fetched until then is kept, as partial, in /,
  })
  assert.deepEqual(readdirSync(folder), ['out.json.partial.ndjson'])
  const [header = '', chunk = '', ...rest] = readFileSync(join(folder, 'out.json.partial.ndjson'), 'utf8').split('\n')
  assert.equal((JSON.parse(header) as { partial: unknown }).partial, true)
  assert.equal((JSON.parse(chunk) as { points: unknown }).points, 11_000)
  assert.deepEqual(rest, [''])
})
