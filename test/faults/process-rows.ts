/* What happens to a process: signals, its log, its disk. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

import { samplesOf } from '../helpers/exposition.js'
import { closedUrl } from '../helpers/local-server.js'
import { PROGRAM } from '../helpers/program.js'
import {
  type Bench,
  incidentArgs,
  isCalm,
  isSettled,
  monitorArgs,
  PASSWORD,
  POLL_SECONDS,
  stopSurely,
  withLane,
} from './bench.js'
import { fileIn, runCommand } from './commands.js'
import { type Daemon, daemonEnvironment, startDaemon, until, within } from './daemon.js'
import { startFaultProxy } from './fault-proxy.js'
import { alarming, assertNoSecret, assertWithoutSecrets, facts, meet, risen } from './judge.js'
import { HANG } from './misbehaviour.js'
import { CannotRun, type Row } from './row.js'

/** How long a daemon may take to end. A busy machine takes some of it. */
async function ends(
  daemon: Daemon,
  signal: NodeJS.Signals,
  { code, withinMs }: { code: number; withinMs: number },
): Promise<number> {
  const startMs = performance.now()
  daemon.child.signal(signal)
  const ended = await within(`the end after ${signal}`, daemon.child.exited)
  const tookMs = performance.now() - startMs
  assert.equal(ended, code, `exit code after ${signal}: ${daemon.lines.slice(-2).join(' ')}`)
  assert.ok(tookMs <= withinMs, `ended after ${tookMs.toFixed(0)} ms`)
  if (code === 0) assert.equal(daemon.events().at(-1)?.['msg'], 'stopped')
  return Math.round(tookMs)
}

const IDLE_MS = 1_500
const WORST_MS = 5_500

/** Asks for /metrics again and again on one connection, and reads nothing of the answers. */
async function slowReader(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => undefined)
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.pause()
  for (let i = 0; i < 300; i++) socket.write('GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n')
  await delay(300)
  return socket
}

/** A file descriptor of a pipe that nobody reads and nothing more goes into. */
function fullPipe(folder: string): number {
  const path = join(folder, 'log')
  spawnSync('mkfifo', [path])
  const blocking = openSync(path, constants.O_RDWR)
  const filling = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  try {
    for (;;) writeSync(filling, Buffer.alloc(4_096, 'x'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
  } finally {
    closeSync(filling)
  }
  return blocking
}

interface Mute {
  readonly url: string
  readonly ok: () => Promise<number>
  readonly rssMib: () => Promise<number>
  readonly end: () => Promise<{ readonly code: number | null; readonly tookMs: number }>
}

/** A monitor whose log goes where it cannot. */
async function muteMonitor(bench: Bench, stdout: number | 'pipe'): Promise<Mute> {
  const url = await closedUrl()
  const args = monitorArgs(bench, bench.prometheus.url).map((arg) => (arg === '0' ? new URL(url).port : arg))
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    env: daemonEnvironment(),
    stdio: ['ignore', stdout, 'ignore'],
  })
  bench.atEnd(() => child.kill('SIGKILL'))
  if (stdout === 'pipe') child.stdout?.destroy()
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const metrics = async () =>
    samplesOf(await (await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(2_000) })).text())
  const ok = async (): Promise<number> => {
    try {
      return (await metrics()).get('meshfever_polls_total{outcome="ok"}') ?? 0
    } catch {
      return 0
    }
  }
  return {
    url,
    ok,
    rssMib: async () => ((await metrics()).get('process_resident_memory_bytes') ?? NaN) / 2 ** 20,
    end: async () => {
      const startMs = performance.now()
      child.kill('SIGTERM')
      const code = await within('the end', exited)
      return { code, tookMs: Math.round(performance.now() - startMs) }
    },
  }
}

async function pollsOn(mute: Mute, polls: number): Promise<void> {
  await until(`${polls} good polls`, async () => ((await mute.ok()) >= polls ? true : undefined), {
    patienceMs: 60_000,
  })
  assert.equal((await fetch(`${mute.url}/healthz`)).status, 200)
}

/** Its PID as it is seen from here. */
function pidInside(outer: number): number {
  const [inner] = readFileSync(`/proc/${outer}/task/${outer}/children`, 'utf8').trim().split(' ')
  return Number(inner)
}

const recordArgs = (bench: Bench, prometheusUrl: string, output: string): readonly string[] => [
  ...['record', '--service1', 'frontend', '--service2', 'cart', '--prometheus-url', prometheusUrl],
  ...['--range', '12s', '--step-seconds', '1', '--query-window', '6s', '--output', output],
  ...bench.prometheusAccess,
]

/** A small file system of its own, gone with the bench. @throws {CannotRun} where we may not */
function smallDisk(bench: Bench, bytes: number): string {
  const folder = join(bench.newFolder(), 'disk')
  mkdirSync(folder)
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'none', folder], {
    encoding: 'utf8',
  })
  if (status !== 0) throw new CannotRun(`no file system of one's own may be mounted here: ${stderr.trim()}`)
  bench.atEnd(() => spawnSync('umount', ['-l', folder]))
  return folder
}

const UNHANDLED = `
process.once('SIGUSR2', () => {
  const { PLANTED: password } = process.env
  void Promise.reject(Object.assign(new Error('boom'), { config: { auth: { password }, headers: { Authorization: 'x ' + password } } }))
})
`

export const PROCESS_ROWS: readonly Row[] = [
  {
    id: 'P1',
    fault: 'SIGTERM while nothing happens',
    gate: true,
    run: (bench) =>
      withLane(bench, {}, async ({ monitor, incident }) => {
        const took = [
          await ends(monitor, 'SIGTERM', { code: 0, withinMs: IDLE_MS }),
          await ends(incident, 'SIGTERM', { code: 0, withinMs: IDLE_MS }),
        ]
        for (const daemon of [monitor, incident]) await assertNoSecret(daemon)
        return `exit code 0 after ${took.join(' and ')} ms, "stopped" is the last line`
      }),
  },
  {
    id: 'P2',
    fault: 'SIGTERM in the middle of a poll that hangs',
    gate: true,
    run: (bench) =>
      withLane(bench, {}, async ({ monitor, incident, proxy }) => {
        const took: number[] = []
        proxy.inject(HANG)
        for (const [name, daemon] of [
          ['monitor', monitor],
          ['incident', incident],
        ] as const) {
          const from = proxy.asked.length
          await until('a poll that hangs', () => proxy.asked.slice(from).find(({ asker }) => asker === name))
          took.push(await ends(daemon, 'SIGTERM', { code: 0, withinMs: IDLE_MS }))
        }
        return `exit code 0 after ${took.join(' and ')} ms`
      }),
  },
  {
    id: 'P3',
    fault: 'SIGTERM while Alertmanager is tried again and again',
    gate: true,
    run: async (bench) => {
      const incidentFlags = ['--alertmanager-url', await closedUrl(), ...bench.alertmanagerAccess]
      return withLane(bench, { incidentFlags }, async ({ incident }) => {
        await incident.logged('that nobody could be notified', 0, ({ msg }) => msg === 'notifications fail')
        const tookMs = await ends(incident, 'SIGTERM', { code: 0, withinMs: 3_000 })
        await assertNoSecret(incident)
        return `exit code 0 after ${tookMs} ms`
      })
    },
  },
  {
    id: 'P4',
    fault: 'SIGTERM while a scraper does not read',
    gate: true,
    run: (bench) =>
      withLane(bench, {}, async ({ monitor }) => {
        const socket = await slowReader(monitor.url)
        const tookMs = await ends(monitor, 'SIGTERM', { code: 0, withinMs: WORST_MS })
        socket.destroy()
        return `exit code 0 after ${tookMs} ms`
      }),
  },
  {
    id: 'P5',
    fault: 'a second SIGTERM while the first is under way',
    run: (bench) =>
      withLane(bench, {}, async ({ monitor }) => {
        const socket = await slowReader(monitor.url)
        monitor.child.signal('SIGTERM')
        await delay(150)
        const startMs = performance.now()
        monitor.child.signal('SIGTERM')
        const code = await within('the end', monitor.child.exited)
        const ended = Math.round(performance.now() - startMs)
        // 143 by our own hand, a signal in the last moments of the process, 0 when it was faster than us.
        assert.ok(code === 143 || code === null || code === 0, `exit code ${String(code)}`)
        assert.ok(ended < 1_000, `ended after ${ended} ms`)
        socket.destroy()
        return `ended after ${ended} ms`
      }),
  },
  {
    id: 'P6',
    fault: 'SIGKILL and a new start',
    gate: true,
    run: (bench) =>
      withLane(bench, {}, async ({ incident, proxy }) => {
        const before = facts(await incident.metrics())
        incident.child.signal('SIGKILL')
        await incident.child.exited
        const again = await startDaemon({
          args: [...incidentArgs(proxy.url), ...bench.prometheusAccess],
          started: bench.owns,
        })
        try {
          await isSettled(again)
          // What was counted since the start of the process is counted anew.
          const told = (all: Readonly<Record<string, number>>) =>
            Object.fromEntries(Object.entries(all).filter(([name]) => !name.startsWith('lab7_incidents_total')))
          assert.deepEqual(told(facts(await again.metrics())), told(before))
          assert.deepEqual(
            again.events().filter(({ msg }) => msg === 'incident transition'),
            [],
            'transitions announced twice',
          )
          return `accumulators, severity and start of the incident as before; no transition announced again`
        } finally {
          await stopSurely(again.child)
        }
      }),
  },
  {
    id: 'P7',
    fault: 'PID 1: SIGTERM',
    gate: true,
    run: async (bench) => {
      if (spawnSync('unshare', ['-fp', '--mount-proc', 'true']).status !== 0)
        throw new CannotRun('no PID namespace may be made here')
      const daemon = await startDaemon({
        args: monitorArgs(bench, bench.prometheus.url),
        through: ['unshare', '-fp', '--mount-proc'],
        started: bench.owns,
      })
      await isCalm(daemon)
      const startMs = performance.now()
      process.kill(pidInside(daemon.child.pid), 'SIGTERM')
      assert.equal(await within('the end of PID 1', daemon.child.exited), 0)
      assert.equal(daemon.events().at(-1)?.['msg'], 'stopped')
      return `exit code 0 after ${Math.round(performance.now() - startMs)} ms`
    },
  },
  {
    id: 'P8',
    fault: 'SIGSTOP for 6 s, and SIGCONT',
    gate: true,
    run: (bench) =>
      withLane(bench, {}, async ({ monitor, incident, proxy }) => {
        const daemons = [monitor, incident]
        const before = await Promise.all(daemons.map((daemon) => daemon.metrics()))
        for (const { child } of daemons) child.signal('SIGSTOP')
        await delay(6_000)
        const from = proxy.asked.length
        for (const { child } of daemons) child.signal('SIGCONT')
        const atMs = Date.now()
        const after = await Promise.all(
          daemons.map((daemon, i) =>
            until('2 good polls', async () => {
              const metrics = await daemon.metrics()
              return (risen(before[i]!, metrics)['ok'] ?? 0) >= 3 ? metrics : undefined
            }),
          ),
        )
        const skipped = after.map(
          (metrics, i) =>
            (metrics.get('meshfever_polls_skipped_total') ?? 0) -
            (before[i]!.get('meshfever_polls_skipped_total') ?? 0),
        )
        for (const count of skipped)
          assert.ok(count >= 6 / POLL_SECONDS - 2 && count <= 6 / POLL_SECONDS + 1, `slots skipped: ${count}`)
        const burst = proxy.asked
          .slice(from)
          .filter(({ asker, atMs: at }) => asker === 'monitor' && at < atMs + 900 * POLL_SECONDS)
        assert.ok(burst.length <= 2, `polls at once: ${burst.length}`)
        assert.deepEqual(facts(after[1]!), facts(before[1]!), 'gauges of the incident daemon')
        return `${skipped.join(' and ')} slots skipped, no burst, accumulators as before`
      }),
  },
  {
    id: 'P12',
    fault: 'a rejection that nobody handles, of an error with credentials',
    run: async (bench) => {
      const module = fileIn(bench.newFolder(), 'unhandled.mjs', UNHANDLED)
      const environment = { NODE_OPTIONS: `--import=${module}`, PLANTED: PASSWORD }
      const daemon = await startDaemon({
        args: monitorArgs(bench, bench.prometheus.url),
        environment,
        started: bench.owns,
      })
      daemon.child.signal('SIGUSR2')
      assert.equal(await within('the end', daemon.child.exited), 1)
      assertWithoutSecrets(daemon.lines)
      const fatal = daemon.events().filter(({ level }) => level === 60)
      assert.equal(fatal.length, 1, 'lines of level fatal')
      assert.match(JSON.stringify(fatal[0]), /boom/)
      return 'exit code 1, one fatal line'
    },
  },
  {
    id: 'P13',
    fault: 'a log reader that has stopped to read',
    run: async (bench) => {
      const log = fullPipe(bench.newFolder())
      const mute = await muteMonitor(bench, log)
      await pollsOn(mute, 5)
      const rss = await mute.rssMib()
      const { code, tookMs } = await mute.end()
      closeSync(log)
      assert.ok(rss < 200, `${rss.toFixed(0)} MiB`)
      assert.ok(tookMs <= WORST_MS, `ended after ${tookMs} ms`)
      return `5 good polls, ended with ${String(code)} after ${tookMs} ms`
    },
  },
  {
    id: 'P13 disk',
    fault: 'a log on a disk that is full',
    run: async (bench) => {
      const log = openSync('/dev/full', 'w')
      const mute = await muteMonitor(bench, log)
      await pollsOn(mute, 5)
      const { code, tookMs } = await mute.end()
      closeSync(log)
      assert.ok(tookMs <= WORST_MS, `ended after ${tookMs} ms`)
      return `5 good polls, ended with ${String(code)} after ${tookMs} ms`
    },
  },
  {
    id: 'P14',
    fault: 'a log reader that is gone',
    run: async (bench) => {
      const mute = await muteMonitor(bench, 'pipe')
      await pollsOn(mute, 5)
      const { code, tookMs } = await mute.end()
      assert.ok(tookMs <= WORST_MS, `ended after ${tookMs} ms`)
      return `5 good polls, ended with ${String(code)} after ${tookMs} ms`
    },
  },
  {
    id: 'D1',
    fault: 'record onto a full disk, over an old file',
    gate: true,
    run: async (bench) => {
      const folder = smallDisk(bench, 4_096)
      const output = fileIn(folder, 'training.json', 'the old one')
      // The old file takes the one page that there is.
      const ended = await until(
        'enough history to record',
        async () => {
          const one = await runCommand(recordArgs(bench, bench.prometheus.url, output))
          return /no (series|data|value)|nothing recorded: (?!cannot)/i.test(one.stderr) ? undefined : one
        },
        { patienceMs: 60_000 },
      )
      assert.equal(ended.code, 1, ended.stderr)
      assert.match(ended.stderr, /cannot write .*training\.json.*ENOSPC/)
      assert.equal(readFileSync(output, 'utf8'), 'the old one')
      assertWithoutSecrets([ended.stdout, ended.stderr])
      return `exit code 1, ENOSPC, the old file is as it was, beside it: ${
        readdirSync(folder)
          .filter((name) => name !== 'training.json')
          .join(', ') || 'nothing'
      }`
    },
  },
  {
    id: 'D3',
    fault: 'SIGKILL in the middle of a recording, and the same command again',
    gate: true,
    run: async (bench) => {
      const proxy = await startFaultProxy(bench.prometheus.url)
      try {
        const output = join(bench.newFolder(), 'training.json')
        proxy.inject(HANG)
        const child = spawn(process.execPath, [PROGRAM, ...recordArgs(bench, proxy.url, output)], {
          env: daemonEnvironment(),
          stdio: 'ignore',
        })
        const gone = new Promise((resolve) => child.once('exit', resolve))
        await until('the first question', () => proxy.asked[0], { patienceMs: 60_000 })
        child.kill('SIGKILL')
        await gone
        const left = readdirSync(join(output, '..'))
        assert.ok(!left.includes('training.json'))
        proxy.inject(null)
        const again = await until(
          'a recording',
          async () => {
            const one = await runCommand(recordArgs(bench, proxy.url, output))
            return one.code === 0 ? one : undefined
          },
          { patienceMs: 60_000 },
        )
        assertWithoutSecrets([again.stdout, again.stderr])
        assert.deepEqual(readdirSync(join(output, '..')), ['training.json'])
        return 'nothing half-written under its name; the second run is whole'
      } finally {
        await proxy.close()
      }
    },
  },
  {
    id: 'L7',
    fault: 'the same error for 65 s',
    run: (bench) =>
      withLane(bench, {}, async (lane) => {
        const from = lane.monitor.lines.length
        const seen = await meet(lane, {
          fault: 'refuse',
          monitor: { outcome: 'conn' },
          incident: { outcome: 'conn' },
          also: () => delay(63_000),
          summary: 1,
        })
        const lines = alarming(lane.monitor.events(from)).length
        assert.equal(lines, 2, 'lines about it')
        return `${lines} lines, ${seen}`
      }),
  },
]
