/*
 * What it costs to render the gauges of 10,000 edges: by prom-client, whose gauges hold the values already, and by a mesh's
 * monitor, which writes the text as it scores. Both texts hold the same lines.
 *
 *   npm run bench:mesh exposition
 */
import { Counter, Gauge, Registry } from 'prom-client'

import { createEdgeText, EDGE_FAMILY_HEADS } from '../src/core/exposition-text.js'
import { PAIR_GAUGES, pairValues, QUANTILE_GAUGES, quantileValues } from '../src/core/gauge-values.js'
import { MONITOR_COUNTERS, MONITOR_GAUGES } from '../src/core/metric-names.js'
import { missing } from '../src/core/reading.js'
import { type Evaluation, score, VERDICTS } from '../src/core/score.js'
import { lognormal, seededRandom } from '../src/testbed/random.js'
import { cpuMicroseconds, fitShape, fleetEdges, least, rounded, RULES } from './mesh-fleet.js'

const EDGES = 10_000
const PASSES = 7
const SLICE = 250

const random = seededRandom(11)
const edges = fleetEdges(EDGES)
const fitted = fitShape('rate', 1)
const evaluations = edges.map((_, i): Evaluation => {
  const timestampSeconds = 1_710_000_000.123
  const latencies = [{ quantile: 0.5, latencyMs: lognormal(random, { median: 15, sigma: 0.1 }) }]
  const watches = [{ quantile: 0.5, watch: fitted.watch() }]
  if (i % 100 === 0) return score(watches, missing('empty', ''), RULES)
  const sample = { timestampSeconds, latencies, requestsPerSecond: 5 + 10 * random() }
  return score(watches, { kind: 'sample', outcome: 'ok', sample }, RULES)
})

const registry = new Registry()
const gauges = Object.fromEntries(
  Object.entries(MONITOR_GAUGES).map(([key, { name, help, labels }]) => [
    key,
    new Gauge({ name, help, labelNames: [...labels], registers: [registry] }),
  ]),
) as Record<keyof typeof MONITOR_GAUGES, Gauge>
const { name, help, labels: labelNames } = MONITOR_COUNTERS.anomalies
const anomalies = new Counter({ name, help, labelNames: [...labelNames], registers: [registry] })

/** As the monitor of one pair does. */
function setGauges(): void {
  edges.forEach(({ source, destination }, i) => {
    const evaluation = evaluations[i]!
    const labels = { source, destination }
    for (const verdict of VERDICTS) gauges.verdict.set({ ...labels, verdict }, Number(verdict === evaluation.verdict))
    const scored = quantileValues(evaluation, 0.5)
    for (const key of QUANTILE_GAUGES) {
      if (scored[key] !== null) gauges[key].set({ ...labels, quantile: '0.5' }, scored[key])
    }
    const values = pairValues(evaluation)
    for (const key of PAIR_GAUGES) if (values[key] !== null) gauges[key].set(labels, values[key])
    anomalies.inc(labels, 0)
  })
}

const text = createEdgeText([0.5])

function render(): Buffer {
  const families = EDGE_FAMILY_HEADS.map((head): Uint8Array[] => [Buffer.from(head)])
  for (let from = 0; from < EDGES; from += SLICE) {
    for (let i = from; i < from + SLICE; i++) text.add(edges[i]!, evaluations[i]!, 0)
    text.take().forEach((lines, family) => families[family]!.push(lines))
  }
  return Buffer.concat(families.flat())
}

interface Cost {
  readonly cpuMs: number
  readonly ms: number
}

async function costOf<T>(run: () => T | Promise<T>): Promise<Cost> {
  const costs: Cost[] = []
  for (let i = 0; i < PASSES; i++) {
    const [cpu, from] = [cpuMicroseconds(), performance.now()]
    await run()
    costs.push({ cpuMs: (cpuMicroseconds() - cpu) / 1_000, ms: performance.now() - from })
  }
  return { cpuMs: least(costs.map(({ cpuMs }) => cpuMs)), ms: least(costs.map(({ ms }) => ms)) }
}

const sorted = (exposition: string): string =>
  exposition
    .split('\n')
    .filter((line) => line !== '')
    .sort()
    .join('\n')

setGauges()
if (sorted(await registry.metrics()) !== sorted(render().toString())) throw new Error('the texts differ')
const setting = await costOf(setGauges)
const promClient = await costOf(() => registry.metrics())
const own = await costOf(render)
const shown = ({ cpuMs, ms }: Cost): Cost => ({ cpuMs: rounded(cpuMs), ms: rounded(ms) })
console.log(
  JSON.stringify(
    {
      edges: EDGES,
      bytes: render().length,
      promClient: { render: shown(promClient), setGauges: shown(setting) },
      own: { render: shown(own) },
      goalTimesFaster: 5,
      timesFasterRendering: rounded(promClient.ms / own.ms),
      timesLessCpuRendering: rounded(promClient.cpuMs / own.cpuMs),
      timesLessCpuSettingAndRendering: rounded((promClient.cpuMs + setting.cpuMs) / own.cpuMs),
    },
    null,
    2,
  ),
)
