import { Worker } from 'node:worker_threads'

import fc from 'fast-check'

/** Something that has to hold of every input there is. */
export interface FuzzProperty {
  readonly name: string
  /** How many inputs the tests try. */
  readonly runs: number
  /** @param beat - called before each input @returns what was found, for a person; null when it held of all */
  readonly check: (settings: FuzzSettings, beat: () => void) => Promise<string | null>
}

export interface FuzzSettings {
  readonly seed: number
  readonly runs: number
  /** Repeats one input of an earlier run, as it was reported; undefined: all. */
  readonly path: string | undefined
}

/** So long a simpler input is looked for that does not hold either. */
const SIMPLER_MS = 10_000

/** @param holds - throws for an input of which it does not hold */
export function property<T>(
  { name, runs }: Pick<FuzzProperty, 'name' | 'runs'>,
  inputs: fc.Arbitrary<T>,
  holds: (input: T) => void | Promise<void>,
): FuzzProperty {
  return {
    name,
    runs,
    check: async ({ seed, runs: numRuns, path }, beat) => {
      let failedMs = Infinity
      const checked = fc.asyncProperty(inputs, async (input) => {
        beat()
        if (performance.now() - failedMs > SIMPLER_MS) return
        try {
          await holds(input)
        } catch (error) {
          failedMs = Math.min(failedMs, performance.now())
          throw error
        }
      })
      const found = await fc.check(checked, { seed, numRuns, ...(path === undefined ? {} : { path }) })
      if (!found.failed) return null
      const why = found.errorInstance instanceof Error ? found.errorInstance.stack : String(found.errorInstance)
      return `${fc.defaultReportMessage(found) ?? 'failed'}\n${why ?? ''}`
    },
  }
}

/** The files in this folder whose properties are tried, and how many inputs the tests give to each of them. */
export const FUZZ_GROUPS = {
  answers: 17_000,
  exposition: 4_100,
  files: 9_560,
  incident: 8_800,
  names: 17_000,
  training: 5_003,
} as const
export type FuzzGroup = keyof typeof FUZZ_GROUPS

/** Longer than this no input takes, on a busy machine either. */
const SILENCE_MS = 30_000

export interface Fuzzer {
  /** Names and numbers of inputs. */
  readonly properties: () => Promise<readonly Pick<FuzzProperty, 'name' | 'runs'>[]>
  /** @throws {Error} what was found: an input of which the property does not hold, or at which it never came to an end */
  readonly run: (name: string, settings: FuzzSettings) => Promise<void>
  readonly close: () => Promise<void>
}

/** What is said to the worker, and what it answers. */
export interface FuzzWork extends FuzzSettings {
  readonly name: string
}
export type FuzzAnswer =
  | { readonly kind: 'properties'; readonly properties: readonly Pick<FuzzProperty, 'name' | 'runs'>[] }
  | { readonly kind: 'done'; readonly found: string | null }

/**
 * Tries the properties of a group in a thread of its own. An input at which it hangs stops that thread for ever, so it is
 * watched from here: each input is counted in memory that both share.
 */
export function startFuzzer(group: FuzzGroup | 'endless', { silenceMs = SILENCE_MS } = {}): Fuzzer {
  const beats = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(new URL('./fuzz-worker.js', import.meta.url), {
    workerData: { group, beats },
    // One input must not end the others' test for want of memory that it took for ever.
    resourceLimits: { maxOldGenerationSizeMb: 1_500 },
  })
  const answer = async (silence: (input: number) => Error): Promise<FuzzAnswer> => {
    const over = new AbortController()
    try {
      return await new Promise<FuzzAnswer>((resolve, reject) => {
        let [seen, sinceMs] = [Atomics.load(beats, 0), performance.now()]
        const watch = setInterval(() => {
          const now = Atomics.load(beats, 0)
          if (now !== seen) [seen, sinceMs] = [now, performance.now()]
          else if (performance.now() - sinceMs > silenceMs) reject(silence(now - 1))
        }, silenceMs / 20)
        const ended = (code: number): void => reject(new Error(`the thread that fuzzes ended with ${code}`))
        worker.once('message', resolve).once('error', reject).once('exit', ended)
        over.signal.addEventListener('abort', () => {
          clearInterval(watch)
          worker.off('message', resolve).off('error', reject).off('exit', ended)
        })
      })
    } finally {
      over.abort()
    }
  }
  const loaded = answer(() => new Error(`fuzz-${group} did not load`)).then((said) =>
    said.kind === 'properties' ? said.properties : [],
  )
  // Whoever asks gets the error; a thread that is closed before anyone did is none.
  loaded.catch(() => undefined)
  return {
    properties: () => loaded,
    run: async (name, settings) => {
      await loaded
      const again = (path: string): string =>
        `npm run fuzz -- --seed ${settings.seed} --only ${JSON.stringify(name)} --path ${path}`
      Atomics.store(beats, 0, 0)
      worker.postMessage({ name, ...settings } satisfies FuzzWork)
      const said = await answer(
        (input) => new Error(`${name}: no end within ${silenceMs / 1000} s of input ${input}: ${again(String(input))}`),
      )
      if (said.kind === 'done' && said.found !== null) {
        const [, path = '0'] = /path: "([\d:]+)"/.exec(said.found) ?? []
        throw new Error(`${name}\n${said.found}\n${again(path)}`)
      }
    },
    close: async () => {
      await worker.terminate()
    },
  }
}
