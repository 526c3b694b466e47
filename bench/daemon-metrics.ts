/** What a daemon says of itself on /metrics, for the benchmarks. */
import { linearRegression, median } from 'simple-statistics'

import type { Runtime } from '../src/io/runtime.js'

/** One reading of a daemon's own metrics. */
export interface SelfReading {
  readonly rssMiB: number
  /** What V8 uses: goes up and down with its garbage collections. */
  readonly heapMiB: number
  /** Since about its start: for differences. */
  readonly cpuSeconds: number
  readonly openFileDescriptors: number
  /** By outcome; those that never came are left out. */
  readonly polls: Readonly<Record<string, number>>
  readonly skippedPolls: number
}

/** @throws when nobody answers */
export async function readSelf({ http }: Pick<Runtime, 'http'>, url: string): Promise<SelfReading> {
  const { data } = await http.get<string>(`${url}/metrics`)
  const value = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(data)?.[1])
  const polls = [...data.matchAll(/^meshfever_polls_total\{outcome="(\w+)"\} (\S+)$/gm)]
    .map(([, outcome = '', count]) => [outcome, Number(count)] as const)
    .filter(([, count]) => count > 0)
  return {
    rssMiB: value('process_resident_memory_bytes') / 2 ** 20,
    heapMiB: value('nodejs_heap_size_used_bytes') / 2 ** 20,
    cpuSeconds: value('process_cpu_seconds_total'),
    openFileDescriptors: value('process_open_fds'),
    polls: Object.fromEntries(polls),
    skippedPolls: value('meshfever_polls_skipped_total'),
  }
}

/** What values taken at even times come to, in MiB. */
export interface Course {
  readonly medianMiB: number
  readonly maxMiB: number
  /** Least squares over the second half. */
  readonly slopeMiBPerHour: number
}

/** @param everySeconds - between two values */
export function courseOf(mib: readonly number[], everySeconds: number): Course {
  return {
    medianMiB: rounded(median([...mib])),
    maxMiB: rounded(mib.reduce((a, b) => Math.max(a, b), 0)),
    slopeMiBPerHour: rounded(slopeOfSecondHalf(mib) * (3600 / everySeconds)),
  }
}

/** By how much each value is above the one before it: least squares over the second half. */
export function slopeOfSecondHalf(values: readonly number[]): number {
  const later = values.slice(Math.floor(values.length / 2))
  return later.length < 2 ? NaN : linearRegression(later.map((value, i) => [i, value])).m
}

export function rounded(value: number): number {
  return Number(value.toFixed(3))
}
