import assert from 'node:assert/strict'
import test from 'node:test'

import { FUZZ_GROUPS, type FuzzGroup, startFuzzer } from './fuzz.js'

/** Always the same inputs: what is new is looked for by `npm run fuzz`. */
const SEED = 20_260_131

/** A test for each property of a group. */
export function testFuzzGroup(group: FuzzGroup): void {
  test(`fuzz ${group}: ${FUZZ_GROUPS[group].toLocaleString('en')} inputs`, async (context) => {
    const fuzzer = startFuzzer(group)
    try {
      const properties = await fuzzer.properties()
      for (const { name, runs } of properties) {
        await context.test(name, () => fuzzer.run(name, { seed: SEED, runs, path: undefined }))
      }
      const inputs = properties.reduce((sum, { runs }) => sum + runs, 0)
      assert.equal(inputs, FUZZ_GROUPS[group])
    } finally {
      await fuzzer.close()
    }
  })
}
