import { type Bench, type Lane, startLane } from './bench.js'
import type { ConnectionRow } from './connection-rows.js'
import { meet } from './judge.js'
import { CannotRun, type NotRun, type Row } from './row.js'

export interface Result {
  readonly id: string
  readonly fault: string
  readonly gate: boolean
  /** What was seen, or what was not as it has to be. */
  readonly seen: string
  readonly verdict: 'passed' | 'FAILED' | 'not run'
  readonly tookMs: number
  /** Of two tries, the second. */
  readonly again?: true
}

type Head = Pick<Row, 'id' | 'fault' | 'gate'>

async function judged({ id, fault, gate }: Head, run: () => Promise<string>): Promise<Result> {
  const startMs = performance.now()
  const result = (verdict: Result['verdict'], seen: string): Result => ({
    id,
    fault,
    gate: gate === true,
    seen,
    verdict,
    tookMs: performance.now() - startMs,
  })
  try {
    return result('passed', await run())
  } catch (error) {
    const { message = String(error) } = error as Partial<Error>
    return result(error instanceof CannotRun ? 'not run' : 'FAILED', message.trim())
  }
}

/** Works through `jobs`, several at once. */
export async function inParallel<T>(
  workers: number,
  jobs: readonly T[],
  work: (job: T) => Promise<void>,
): Promise<void> {
  const waiting = [...jobs]
  const worker = async (): Promise<void> => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) await work(job)
  }
  await Promise.all(Array.from({ length: workers }, worker))
}

/** Rows that need nothing but the bench. */
export function runRows(
  bench: Bench,
  rows: readonly Row[],
  workers: number,
  tell: (result: Result) => void,
): Promise<void> {
  return inParallel(workers, rows, async (row) => tell(await judged(row, () => row.run(bench))))
}

/** Rows on the way to Prometheus, each lane one after the other; after a row that fails the lane is built anew. */
export async function runConnectionRows(
  bench: Bench,
  rows: readonly ConnectionRow[],
  lanes: number,
  tell: (result: Result) => void,
): Promise<void> {
  const waiting = [...rows]
  const worker = async (): Promise<void> => {
    let lane: Lane | null = null
    for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) {
      const { id, title, gate, ...fault } = row
      const head = { id, fault: title, ...(gate === undefined ? {} : { gate }) }
      const result = await judged(head, async () => {
        lane ??= await startLane(bench)
        return meet(lane, fault)
      })
      tell(result)
      if (result.verdict === 'FAILED') {
        await (lane as Lane | null)?.close()
        lane = null
      }
    }
    await (lane as Lane | null)?.close()
  }
  await Promise.all(Array.from({ length: Math.min(lanes, rows.length) }, worker))
}

export interface Versions {
  readonly prometheus: string
  readonly alertmanager: string
  readonly node: string
}

const cell = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('|', '\\|').replaceAll('`', "'").replaceAll(/\s+/g, ' ').slice(0, 300)

/** The table of a run, as a page of the documentation. */
export function tableOf(results: readonly Result[], notRun: readonly NotRun[], about: string): string {
  const run = results.filter(({ verdict }) => verdict !== 'not run')
  const left = [
    ...notRun,
    ...results
      .filter(({ verdict }) => verdict === 'not run')
      .map(({ id, fault, seen }) => ({ id, fault, reason: seen })),
  ]
  const passed = run.filter(({ verdict }) => verdict === 'passed')
  const lines = [
    '# Faults',
    '',
    'Written by `npm run faults -- --table docs/faults.md`; do not edit.',
    '',
    about,
    '',
    `${passed.length} of ${run.length} rows passed; ${run.filter(({ gate }) => gate).length} of them, marked with *, are the gate of \`.ci/run\`.`,
    '',
    '| row | fault | seen | passed |',
    '| --- | --- | --- | --- |',
    ...run.map(
      ({ id, fault, gate, seen, verdict, again }) =>
        `| ${cell(id)}${gate ? ' \\*' : ''} | ${cell(fault)} | ${cell(seen)}${again === true ? ' (second try)' : ''} | ${verdict === 'passed' ? 'yes' : 'NO'} |`,
    ),
    '',
    '## Not run',
    '',
    'These are not counted.',
    '',
    '| row | fault | why not |',
    '| --- | --- | --- |',
    ...left.map(({ id, fault, reason }) => `| ${cell(id)} | ${cell(fault)} | ${cell(reason)} |`),
    '',
  ]
  return lines.join('\n')
}
