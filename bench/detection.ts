/*
 * Detection quality of every model on recorded latencies with labels, by the scorer of ../shared/bench: the whole product is
 * run, `meshfever replay` with its defaults, on every recording.
 *
 *   npm run bench:detection [-- --models a,b] [--direction both] [--bench FOLDER]
 *
 * The pooled data sets make the first table, the recordings with surges of traffic, which only a model that knows the request
 * rate can explain, the second. Without the recordings there is nothing to measure, and it says so.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { MODELS } from '../src/commands/models.js'
import { benchRuntime } from './runtime.js'

/** Pooled by the scorer into one row. */
const POOLED = [
  ...['boutique-cross', 'boutique-phase', 'boutique-within', 'petshop-avg', 'petshop-drift', 'petshop-p50'],
  ...['sim-day', 'sim-short'],
]
const SETS = [
  { title: 'Pooled', datasets: POOLED },
  { title: 'Surges of traffic', datasets: ['sim-load'] },
]

/** What the scorer says of a data set, as far as it is shown here. */
interface Measured {
  readonly events: number
  readonly event_f1: number | null
  readonly pr_auc: number | null
  readonly false_incidents: number
  readonly false_incidents_per_day: number | null
  readonly normal_days: number
  readonly transients: number
  readonly tolerated: number | null
  readonly recall_incident: number | null
  readonly ttd_incident_s: number | null
  readonly by_kind: Readonly<Record<string, { readonly n: number; readonly incident: number }>>
}

interface Result {
  readonly model: string
  readonly set: string
  readonly direction: string
  readonly datasets: Readonly<Record<string, Measured>>
}

const { values: options } = parseArgs({
  options: {
    models: { type: 'string', default: MODELS.map(({ name }) => name).join(',') },
    direction: { type: 'string', default: 'above' },
    bench: { type: 'string', default: join(packageRoot(), '..', 'shared', 'bench') },
  },
})

/** Compiled, this file lies in dist/bench of the package. */
function packageRoot(): string {
  return dirname(realpathSync(fileURLToPath(new URL('../../package.json', import.meta.url))))
}

async function measure(model: string, datasets: readonly string[], out: string): Promise<Result['datasets']> {
  const { nodePath, scriptPath } = benchRuntime().program
  const detector = `"${nodePath}" "${scriptPath}" replay --model ${model} --direction ${options.direction} {train} {series}`
  const args = [
    '--name',
    model,
    '--datasets',
    datasets.join(','),
    '--out',
    out,
    '--timeout',
    '600',
    '--detector',
    detector,
  ]
  const child = spawn(nodePath, [join(options.bench, 'score.mjs'), ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`the scorer ended with ${code ?? 'a signal'}`)
  const [result] = JSON.parse(readFileSync(out, 'utf8')) as [{ failed: number; datasets: Result['datasets'] }]
  if (result.failed > 0) throw new Error(`${result.failed} recordings failed for ${model}`)
  return result.datasets
}

function tables(results: readonly Result[], title: string): string {
  const rows = results.filter(({ set }) => set === title)
  const pooled = rows[0]?.datasets['overall']
  if (pooled === undefined) return ''
  const kinds = Object.keys(pooled.by_kind).sort()
  const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  const head = [
    ...['model', 'event F1', 'PR-AUC', 'false incidents a day', 'transients tolerated', 'time to incident'],
    ...kinds.map((kind) => `${kind} (${pooled.by_kind[kind]?.n ?? 0})`),
  ]
  const names = Object.keys(rows[0]?.datasets ?? {}).filter((name) => name !== 'overall')
  return [
    `**${title}**: ${pooled.events} fault windows, ${pooled.transients} transients, ${fixed(pooled.normal_days, 1)} days of normal traffic`,
    '',
    row(head),
    row(head.map((_, i) => (i === 0 ? ':--' : '--:'))),
    ...rows.map(({ model, datasets: { overall } }) =>
      row([
        model,
        fixed(overall?.event_f1, 3),
        fixed(overall?.pr_auc, 3),
        fixed(overall?.false_incidents_per_day, 2),
        percent(overall?.tolerated),
        `${fixed(overall?.ttd_incident_s, 0)} s`,
        ...kinds.map((kind) => {
          const { n = 0, incident = 0 } = overall?.by_kind[kind] ?? {}
          return percent(n === 0 ? null : incident / n)
        }),
      ]),
    ),
    ...(names.length < 2
      ? []
      : [
          '',
          'Event F1 by data set:',
          '',
          row(['model', ...names]),
          row(['model', ...names].map((_, i) => (i === 0 ? ':--' : '--:'))),
          ...rows.map(({ model, datasets }) =>
            row([model, ...names.map((name) => fixed(datasets[name]?.event_f1, 3))]),
          ),
        ]),
    '',
  ].join('\n')
}

function fixed(value: number | null | undefined, digits: number): string {
  return value === null || value === undefined ? '-' : value.toFixed(digits)
}

function percent(value: number | null | undefined): string {
  return value === null || value === undefined ? '-' : `${(100 * value).toFixed(0)} %`
}

if (!existsSync(join(options.bench, 'score.mjs'))) {
  console.error(`nothing measured: no scorer and recordings in ${options.bench}; name their folder with --bench`)
} else {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-detection-'))
  try {
    const results: Result[] = []
    for (const model of options.models.split(',')) {
      for (const { title, datasets } of SETS) {
        const measured = await measure(model, datasets, join(folder, 'result.json'))
        results.push({ model, set: title, direction: options.direction, datasets: measured })
      }
    }
    for (const { title } of SETS) console.log(tables(results, title))
    console.log(JSON.stringify({ results }))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
