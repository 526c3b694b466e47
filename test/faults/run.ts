import { StartError } from '../../src/core/errors.js'
import { ALERT_ROWS } from './alert-rows.js'
import { ALONE_ROWS } from './alone-rows.js'
import { type Bench, startBench } from './bench.js'
import { COMMAND_ROWS } from './command-rows.js'
import { CONNECTION_ROWS } from './connection-rows.js'
import { NOT_RUN } from './not-run.js'
import { PAGE_ROWS } from './page-rows.js'
import { PROCESS_ROWS } from './process-rows.js'
import type { Row } from './row.js'
import { type Result, runConnectionRows, runRows, tableOf } from './suite.js'
import { WAY_ROWS } from './way-rows.js'

/** Rows that do their harm to processes of their own. */
const OWN_ROWS: readonly Row[] = [...ALERT_ROWS, ...PAGE_ROWS, ...WAY_ROWS, ...PROCESS_ROWS, ...COMMAND_ROWS]

const LANES = 5
const WORKERS = 4

export interface SuiteOptions {
  /** Only the rows of the gate. */
  readonly gate: boolean
  /** Only these, by id; none: all. */
  readonly rows: readonly string[]
  readonly tell: (line: string) => void
}

/** @throws {StartError} for a row that there is not, or a program that is missing */
export async function runSuite({
  gate,
  rows,
  tell,
}: SuiteOptions): Promise<{ readonly failed: number; readonly table: string }> {
  const all = [...CONNECTION_ROWS, ...OWN_ROWS, ...ALONE_ROWS]
  const unknown = rows.find((id) => !all.some((row) => row.id === id))
  if (unknown !== undefined) throw new StartError(`no row ${unknown} among ${all.map(({ id }) => id).join(', ')}`)
  const wanted = <T extends { readonly id: string; readonly gate?: true }>(list: readonly T[]): readonly T[] =>
    list.filter((row) => (rows.length === 0 || rows.includes(row.id)) && (!gate || row.gate === true))
  const startMs = performance.now()
  const results = new Map<string, Result>()
  const note = (result: Result): void => {
    const again = results.has(result.id)
    results.set(result.id, again ? { ...result, again } : result)
    const { verdict, id, fault, seen, tookMs } = result
    tell(`${verdict.padEnd(7)} ${id.padEnd(14)} ${(tookMs / 1000).toFixed(1).padStart(5)} s  ${fault}: ${seen}`)
  }
  /** What failed so far. */
  const failing = <T extends { readonly id: string }>(list: readonly T[]): readonly T[] =>
    list.filter(({ id }) => results.get(id)?.verdict === 'FAILED')
  const [connection, own, alone] = [wanted(CONNECTION_ROWS), wanted(OWN_ROWS), wanted(ALONE_ROWS)]
  const benches: Bench[] = []
  const bench = async (): Promise<Bench> => {
    const one = await startBench({ cart: 'calm', idle: 'idle', saturated: 'saturated', pay: 'calm' })
    benches.push(one)
    return one
  }
  let shared: Bench | undefined
  try {
    shared = await bench()
    const other = alone.length === 0 ? null : await bench()
    await Promise.all([
      runConnectionRows(shared, connection, LANES, note),
      runRows(shared, own, WORKERS, note),
      other === null ? undefined : runRows(other, alone, 1, note),
    ])
    // Deadlines of a second are missed on a machine that is busy with all of this: what failed has a second try, by itself.
    await runConnectionRows(shared, failing(connection), 1, note)
    await runRows(shared, failing(own), 1, note)
    if (other !== null) await runRows(other, failing(alone), 1, note)
  } finally {
    await Promise.all(benches.map((one) => one.close()))
  }
  const inOrder = all.flatMap(({ id }) => results.get(id) ?? [])
  const count = (verdict: Result['verdict']): number => inOrder.filter((result) => result.verdict === verdict).length
  const failed = count('FAILED')
  const seconds = Math.round((performance.now() - startMs) / 1000)
  tell(`\n${count('passed')} rows passed, ${failed} failed, ${count('not run')} not run, in ${seconds} s`)
  return {
    failed,
    table: tableOf(
      inOrder,
      NOT_RUN,
      `Prometheus ${shared.prometheus.version}, Node ${process.version}, ${seconds} s in all.`,
    ),
  }
}
