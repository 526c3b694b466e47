/* Real runs: testbed, Prometheus and daemons as processes of their own. A few at a time, since they mostly wait. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import {
  rescored,
  transitionAgreement,
  observedOf,
  verdictAgreement,
  verdictsByPair,
} from '../src/core/recorded-run.js'
import { fitBaselines, watchesOf } from '../src/commands/models.js'
import type { Outcome } from '../src/experiment/outcome.js'
import { readRunFolder, trainingFiles } from '../src/io/run-folder.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { type Child, startChild } from '../src/testbed/child-process.js'
import { PROGRAM, runProgram } from './helpers/program.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

/** As short as it can be measured: five scrapes in a window of a second. */
const HEAD = `name: short
application: online-boutique
seed: 3
training: { seconds: 8 }
load: { users: 12, waitSeconds: 0.2-0.4, spawnRate: 100 }
timing: { scrapeSeconds: 0.2, windowSeconds: 1, pollSeconds: 0.25, recordSeconds: 0.2 }
`
const ONE_PAIR = `${HEAD}pairs: [frontend:cartservice]\n`
/** Far beyond what a busy machine does to a few seconds of training. */
const DELAY = '  - { name: cart delay, from: 2, to: 9, delay: { pair: frontend:cartservice, milliseconds: 1000 } }\n'
const ENDLESS = DELAY.replace('to: 9', 'to: 600')

/** A fault that hits nobody. */
const NOBODY = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: nobody }
spec:
  hosts: [cartservice]
  http:
    - match: [{ sourceLabels: { app: nobody } }]
      fault: { delay: { fixedDelay: 200ms } }
      route: [{ destination: { host: cartservice } }]
    - route: [{ destination: { host: cartservice } }]
`

/** What is expected to take half a minute. */
const PATIENCE_MS = 90_000

interface Started {
  readonly folder: string
  readonly child: Child
  /** Resolves when the story has come so far. */
  readonly until: (words: string) => Promise<void>
  readonly output: () => string
  /** The exit code, once it has ended. */
  readonly ended: () => Promise<number | null>
}

function start(t: TestContext, experiment: string): Started {
  const folder = join(temporaryFolder(t), 'run')
  let output = ''
  const child = startChild({
    name: 'experiment',
    command: process.execPath,
    args: [PROGRAM, 'experiment', 'run', temporaryFile(t, experiment, 'short.yaml'), '--output', folder],
    environment: { PATH: process.env['PATH'] ?? '' },
    onLine: (line) => {
      output += `${line}\n`
    },
  })
  t.after(() => child.stop())
  return {
    folder,
    child,
    until: async (words) => {
      const late = delay(PATIENCE_MS, undefined, { ref: false }).then(() => {
        throw new Error(`not within ${PATIENCE_MS} ms: ${words}\n${output}`)
      })
      await Promise.race([child.waitForLine((line) => (line.includes(words) ? true : undefined)), late])
    },
    output: () => output,
    ended: () => child.exited,
  }
}

/** Processes that a process has started, by their command lines. */
function childrenOf(pid: number): ReadonlyMap<number, string> {
  const pids = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
  return new Map(pids.map((child) => [child, readFileSync(`/proc/${child}/cmdline`, 'utf8').replaceAll('\0', ' ')]))
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

function pidOf(children: ReadonlyMap<number, string>, words: string): number {
  const found = [...children].find(([, command]) => command.includes(words))
  assert.ok(found, `${words} in ${[...children.values()].join('\n')}`)
  return found[0]
}

function json(folder: string, name: string): unknown {
  return JSON.parse(readFileSync(join(folder, name), 'utf8'))
}

function filesIn(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
}

function partial(folder: string): unknown {
  return (json(folder, 'run.json') as { readonly partial: unknown }).partial
}

const LINUX = existsSync('/proc/self/task') ? {} : { skip: 'looks into /proc' }

describe('experiment', { concurrency: 3, timeout: 180_000 }, () => {
  it('experiment: run to its end, keeps all that backtest needs, and is as expected', async (t) => {
    const { folder, output, ended } = start(
      t,
      `${HEAD}pairs: [frontend:cartservice, frontend:currencyservice=20]
observe: { seconds: 16 }
faults:
${DELAY}expect: { severity: 2, anomalies: true }
`,
    )
    assert.equal(await ended(), 0, output())
    assert.deepEqual(
      filesIn(folder).filter((name) => !name.endsWith('.png')),
      [
        'experiment.yaml',
        'ground-truth.json',
        'incidents.ndjson',
        'logs/incident.ndjson',
        'logs/monitor-frontend-cartservice.ndjson',
        'logs/monitor-frontend-currencyservice.ndjson',
        'logs/prometheus.ndjson',
        'logs/testbed.ndjson',
        'metrics/anomaly-history.json',
        'metrics/frontend-cartservice.csv',
        'metrics/frontend-cartservice.json',
        'metrics/frontend-currencyservice.csv',
        'metrics/frontend-currencyservice.json',
        'metrics/gauges.csv',
        'metrics/gauges.json',
        'outcome.json',
        'report.html',
        'report.md',
        'run.json',
        'training/frontend-cartservice.json',
        'training/frontend-currencyservice.json',
        'verdicts.ndjson',
      ],
    )
    const { asExpected, severity, checks } = json(folder, 'outcome.json') as Outcome
    assert.deepEqual([asExpected, severity], [true, 2])
    assert.match(
      checks.at(-1)?.seen ?? '',
      /^frontend -> cartservice: after [\d.]+ s, \d+ % of requests slower than 500 ms/,
    )
    for (const words of ['highest severity', 'Everything was as expected.', 'report.html']) {
      assert.ok(output().includes(words), words)
    }

    // What was live is said again, bit for bit.
    const run = readRunFolder(folder)
    assert.deepEqual([run.partial, run.truth?.faults.length, run.truth?.transients.length], [false, 1, 0])
    const verdicts = verdictsByPair(run).map((lines, i) => {
      const what = trainingFiles(folder, run.rules.pairs)[i] ?? ''
      const baselines = fitBaselines(readRecordingFile(what, what), {
        model: 'load-and-season',
        quantiles: [0.5],
        what,
      })
      assert.ok(!(baselines instanceof Promise))
      return verdictAgreement(rescored(lines, watchesOf(baselines), run.scoring))
    })
    assert.deepEqual(
      verdicts.flatMap(({ differences }) => differences),
      [],
    )
    const { differences, of } = transitionAgreement(run, observedOf(run).course)
    assert.deepEqual(differences, [])
    assert.ok(of >= 1 && verdicts.every((agreement) => agreement.of > 40))
  })

  it('experiment: what is not as expected ends with 1 and is named, and so does a fault that does nothing', async (t) => {
    const manifest = temporaryFile(t, NOBODY, 'nobody.yaml')
    const { folder, output, ended } = start(
      t,
      `${ONE_PAIR}observe: { seconds: 4 }
faults:
  - { name: nobody's delay, from: 0, to: 4, manifest: '${manifest}', pairs: [frontend:cartservice], delayMs: 200 }
expect: { severity: 2 }
`,
    )
    assert.equal(await ended(), 1, output())
    const table = output()
      .split('\n')
      .map((line) => line.replace(/ {2,}/g, ' | '))
    assert.ok(table.includes('highest severity | Sev 2 | no incident | NOT AS EXPECTED'), output())
    assert.ok(
      table.some((line) =>
        /^fault "nobody's delay" .* NO EFFECT: \d.* slower than 100 ms, .* in training \| NOT AS EXPECTED$/.test(line),
      ),
      output(),
    )
    assert.equal(partial(folder), false)
    assert.equal((json(folder, 'outcome.json') as Outcome).asExpected, false)
  })

  it('experiment: stopped in training, it keeps what was learnt until then, marked partial', LINUX, async (t) => {
    const { folder, child, until, output, ended } = start(
      t,
      `${ONE_PAIR.replace('seconds: 8', 'seconds: 600')}observe: { seconds: 4 }\nexpect: { severity: none }\n`,
    )
    await until('Learning what is normal')
    await delay(2_000) // so long it learns
    const children = childrenOf(child.pid)
    assert.equal(children.size, 2)
    child.signal('SIGINT')
    assert.equal(await ended(), 1)
    assert.match(output(), /^meshfever: stopped; what was recorded until then is in .*\/run, marked partial$/m)
    assert.equal(partial(folder), true)
    const { series } = readRecordingFile(join(folder, 'training/frontend-cartservice.json'), 'the training')
    assert.ok((series[0]?.latenciesMs.filter(Number.isFinite).length ?? 0) >= 5)
    assert.deepEqual([...children.keys()].filter(isRunning), [])
  })

  it(
    'experiment: stopped while a fault is in force, it takes the fault out and keeps all there is',
    LINUX,
    async (t) => {
      const { folder, child, until, output, ended } = start(
        t,
        `${ONE_PAIR}observe: { seconds: 600 }\nfaults:\n${ENDLESS}expect: { severity: 2 }\n`,
      )
      await until('opened (Sev 2)')
      const children = childrenOf(child.pid)
      assert.equal(children.size, 4)
      child.signal('SIGINT')
      assert.equal(await ended(), 1)
      assert.match(output(), /^meshfever: stopped; what was recorded until then is in .*, marked partial$/m)
      assert.deepEqual([...children.keys()].filter(isRunning), [])
      assert.match(readFileSync(join(folder, 'logs/testbed.ndjson'), 'utf8'), /"msg":"fault removed"/)
      const run = readRunFolder(folder)
      assert.deepEqual([run.partial, run.truth?.faults.map(({ name }) => name)], [true, ['cart delay']])
      assert.deepEqual(
        run.transitions.map(({ transition }) => transition),
        ['opened'],
      )
      assert.match(readFileSync(join(folder, 'report.html'), 'utf8'), /partial/i)
      assert.ok(existsSync(join(folder, 'metrics/frontend-cartservice.csv')))
    },
  )

  it('experiment: when Prometheus is gone, it says so, and nothing stays behind', LINUX, async (t) => {
    const { folder, child, until, output, ended } = start(
      t,
      `${ONE_PAIR.replace('seconds: 8', 'seconds: 600')}observe: { seconds: 4 }\nexpect: { severity: none }\n`,
    )
    await until('Learning what is normal')
    const children = childrenOf(child.pid)
    process.kill(pidOf(children, '--storage.tsdb.path'), 'SIGKILL')
    assert.equal(await ended(), 1)
    assert.match(
      output(),
      /^meshfever: prometheus ended with a signal: .*; what was recorded until then is in .*, marked partial$/m,
    )
    assert.equal(partial(folder), true)
    assert.deepEqual([...children.keys()].filter(isRunning), [])
  })

  it(
    'experiment: when a monitor dies, the run ends, the fault is taken out and what was measured stays',
    LINUX,
    async (t) => {
      const { folder, child, until, output, ended } = start(
        t,
        `${ONE_PAIR}observe: { seconds: 600 }\nfaults:\n${ENDLESS}expect: { severity: 2 }\n`,
      )
      await until('is in force')
      const children = childrenOf(child.pid)
      process.kill(pidOf(children, ' monitor '), 'SIGKILL')
      assert.equal(await ended(), 1)
      assert.match(output(), /^meshfever: monitor frontend -> cartservice ended with a signal: .*marked partial$/m)
      assert.deepEqual([...children.keys()].filter(isRunning), [])
      assert.match(readFileSync(join(folder, 'logs/testbed.ndjson'), 'utf8'), /"msg":"fault removed"/)
      assert.equal(readRunFolder(folder).truth?.faults.length, 1)
      assert.equal(partial(folder), true)
    },
  )

  it('experiment: when the disk is full, it says so, and what was written before stays', LINUX, async (t) => {
    const { folder, child, until, output, ended } = start(
      t,
      `${ONE_PAIR}observe: { seconds: 600 }\nexpect: { severity: none }\n`,
    )
    await until('Learning what is normal')
    const file = join(folder, 'logs/monitor-frontend-cartservice.ndjson')
    symlinkSync('/dev/full', file)
    assert.equal(await ended(), 1)
    assert.ok(
      output().includes(`meshfever: cannot write ${file}: ENOSPC: no space left on device, write; what was recorded`),
      output(),
    )
    assert.equal(partial(folder), true)
    assert.ok(existsSync(join(folder, 'training/frontend-cartservice.json')))
    assert.equal(child.hasEnded(), true)
  })

  it('experiment: a folder with files in it is refused and left alone', async (t) => {
    const file = temporaryFile(t, 'mine', 'mine.txt')
    const folder = join(file, '..')
    const experiment = temporaryFile(
      t,
      `${ONE_PAIR}observe: { seconds: 4 }\nexpect: { severity: none }\n`,
      'short.yaml',
    )
    const { code, stderr } = await runProgram(t, ['experiment', 'run', experiment, '--output', folder])
    assert.equal(code, 2)
    assert.equal(
      stderr,
      `meshfever: --output must be a new or an empty folder, got ${JSON.stringify(folder)} with files in it\n`,
    )
    assert.deepEqual(readdirSync(folder), ['mine.txt'])
  })

  it('experiment: --check says what it would do and starts nothing; what is wrong has its line', async (t) => {
    const text = `${ONE_PAIR}observe: { seconds: 40 }\nexpect: { severity: none }\n`
    const experiment = temporaryFile(t, text, 'short.yaml')
    const good = await runProgram(t, ['experiment', 'run', experiment, '--check', '--seed', '5'])
    assert.deepEqual(
      [good.code, good.stdout, good.stderr],
      [0, `${experiment} is good: short, 8 s of training and 40 s of observation with 0 faults and 0 transients\n`, ''],
    )
    writeFileSync(experiment, text.replace('cartservice', 'cart'))
    const bad = await runProgram(t, ['experiment', 'run', experiment, '--check'])
    assert.equal(bad.code, 2)
    assert.match(
      bad.stderr,
      /short\.yaml, line 7: pairs\[0\] must be a pair of services of online-boutique \(.*; cart is none\)/,
    )
    assert.deepEqual(readdirSync(join(experiment, '..')), [basename(experiment)])
    const other = await runProgram(t, ['experiment', 'walk', experiment])
    assert.deepEqual([other.code, other.stderr], [2, 'meshfever: the action must be run, got "walk"\n'])
  })
})
