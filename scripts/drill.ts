/*
 * The fire drill: the experiments of experiments/ on the testbed, in compressed time, one after the other. Says what was
 * expected of each, what was seen and how long it took, and fails when one differs.
 *
 *   npm run drill [-- NAME NAME] [-- --compress 25] [--output FOLDER]
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import type { Outcome } from '../src/experiment/outcome.js'
import { tableText } from '../src/report/assemble.js'
import { startChild } from '../src/testbed/child-process.js'

/**
 * Half a second between scrapes and two seconds in a window. More, and a window holds so few requests of the quieter pair
 * that it often has none; less, and the drill takes longer than anyone waits for.
 */
const COMPRESS = '30'

const EXPERIMENTS = fileURLToPath(new URL('../../experiments/', import.meta.url))
const PROGRAM = fileURLToPath(new URL('../src/main.js', import.meta.url))

interface Drilled {
  readonly name: string
  readonly folder: string
  /** Null when it did not come to its end. */
  readonly outcome: Outcome | null
  readonly seconds: number
}

const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort())

async function drill(name: string, { compress, folder }: { compress: string; folder: string }): Promise<Drilled> {
  const startMs = performance.now()
  const file = join(EXPERIMENTS, `${name}.yaml`)
  const child = startChild({
    name,
    command: process.execPath,
    args: [PROGRAM, 'experiment', 'run', file, '--compress', compress, '--output', folder],
    // Told once by us, not by the terminal as well: a second signal would end it before it has saved what there is.
    ownGroup: true,
    onLine: (line) => console.log(`${name}  ${line}`),
  })
  stop.signal.addEventListener('abort', () => child.signal('SIGINT'), { once: true })
  const code = await child.exited
  const path = join(folder, 'outcome.json')
  const ended = (code === 0 || code === 1) && existsSync(path) && !isPartial(folder)
  return {
    name,
    folder,
    outcome: ended ? (JSON.parse(readFileSync(path, 'utf8')) as Outcome) : null,
    seconds: (performance.now() - startMs) / 1000,
  }
}

function isPartial(folder: string): boolean {
  return (JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')) as { readonly partial: boolean }).partial
}

function rowOf({ name, outcome, seconds }: Drilled): readonly (string | number | null)[] {
  const tenth = (value: number | null): number | null => (value === null ? null : Number(value.toFixed(1)))
  const [highest] = outcome?.checks ?? []
  return [
    name,
    highest?.expected ?? '?',
    highest?.seen ?? 'nothing: it did not come to its end',
    ...[outcome?.sev2Seconds, outcome?.sev1Seconds, outcome?.resolvedSeconds].map((value) => tenth(value ?? null)),
    outcome?.anomalies ?? null,
    Math.round(seconds),
    outcome?.asExpected === true ? 'ok' : 'NOT AS EXPECTED',
  ]
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { compress: { type: 'string', default: COMPRESS }, output: { type: 'string' } },
})
const known = readdirSync(EXPERIMENTS)
  .filter((file) => file.endsWith('.yaml'))
  .map((file) => basename(file, '.yaml'))
const unknown = positionals.find((name) => !known.includes(name))
if (unknown !== undefined) {
  console.error(`drill: no experiment ${unknown} among ${known.join(', ')}`)
  process.exitCode = 2
} else {
  const parent = values.output ?? mkdtempSync(join(tmpdir(), 'meshfever-drill-'))
  const drilled: Drilled[] = []
  for (const name of positionals.length === 0 ? known : positionals) {
    if (stop.signal.aborted) break
    drilled.push(await drill(name, { compress: values.compress, folder: join(parent, name) }))
  }
  const failed = drilled.filter(({ outcome }) => outcome?.asExpected !== true)
  console.log(
    `\n${tableText({
      title: `${drilled.length} experiments, ${values.compress} times compressed`,
      columns: ['experiment', 'expected', 'seen', 'Sev 2, s', 'Sev 1, s', 'resolved, s', 'anomalies', 'took, s', ''],
      rows: drilled.map(rowOf),
      note: 'Sev 2 and Sev 1 since the first fault came, resolved since the last one went.',
    })}`,
  )
  for (const { name, outcome, folder } of failed) {
    for (const { what, expected, seen, agrees } of outcome?.checks ?? []) {
      if (!agrees) console.log(`${name}: ${what}: expected ${expected}, seen ${seen}`)
    }
    console.log(`${name}: kept in ${folder}`)
  }
  if (failed.length > 0 || stop.signal.aborted) process.exitCode = 1
  else if (values.output === undefined) rmSync(parent, { recursive: true, force: true })
}
