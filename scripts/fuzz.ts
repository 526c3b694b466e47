/*
 * The properties of test/fuzz-*.test.ts and test/incident-model.test.ts on many more inputs, each time other ones. Says what was
 * found with the flags that repeat it, and goes on with the next property; ends with 1 when anything was.
 *
 *   npm run fuzz [-- --runs 1000000] [--seed N] [--only PROPERTY] [--path PATH]
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'

import { FUZZ_GROUPS, type FuzzGroup, type Fuzzer, startFuzzer } from '../test/helpers/fuzz.js'

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '1000000' },
    seed: { type: 'string' },
    only: { type: 'string' },
    path: { type: 'string' },
  },
})

/** @returns a whole number above 0 */
function wholeNumber(name: string, text: string): number {
  const number = Number(text)
  if (Number.isSafeInteger(number) && number > 0) return number
  console.error(`--${name} must be a whole number above 0, got ${JSON.stringify(text)}`)
  process.exit(2)
}

const wanted = wholeNumber('runs', values.runs)
const seed = values.seed === undefined ? 1 + Math.floor(Math.random() * 2 ** 31) : wholeNumber('seed', values.seed)
const usual = Object.values(FUZZ_GROUPS).reduce((sum, inputs) => sum + inputs, 0)
const startMs = performance.now()
let tried = 0
const found: string[] = []

const clock = (): string => `${((performance.now() - startMs) / 1000).toFixed(0).padStart(5)} s`

async function fuzz(group: FuzzGroup): Promise<void> {
  let fuzzer: Fuzzer = startFuzzer(group)
  try {
    for (const { name, runs: usually } of await fuzzer.properties()) {
      if (values.only !== undefined && values.only !== name) continue
      const runs = values.path !== undefined ? 1 : Math.max(1, Math.round((usually * wanted) / usual))
      try {
        await fuzzer.run(name, { seed, runs, path: values.path })
        tried += runs
        console.log(`${clock()}  ${tried.toLocaleString('en').padStart(9)} inputs  ${group}: ${name}`)
      } catch (error) {
        found.push((error as Error).message)
        console.log(`${clock()}  FOUND ${(error as Error).message}\n`)
        // It may be in the middle of an input that it never comes to the end of.
        await fuzzer.close()
        fuzzer = startFuzzer(group)
      }
    }
  } finally {
    await fuzzer.close()
  }
}

console.log(`npm run fuzz -- --seed ${seed} --runs ${wanted}`)
const groups = Object.keys(FUZZ_GROUPS) as FuzzGroup[]
await Promise.all(
  Array.from({ length: Math.min(groups.length, availableParallelism()) }, async () => {
    for (let group = groups.shift(); group !== undefined; group = groups.shift()) await fuzz(group)
  }),
)
console.log(`${clock()}  ${tried.toLocaleString('en')} inputs tried, ${found.length} properties failed, seed ${seed}`)
process.exitCode = found.length === 0 ? 0 : 1
