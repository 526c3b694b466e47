import assert from 'node:assert/strict'
import test from 'node:test'

import { FUZZ_GROUPS, startFuzzer } from './helpers/fuzz.js'

/** What a run throws. */
async function foundBy(name: string, path?: string): Promise<string> {
  const fuzzer = startFuzzer('endless', { silenceMs: 2_000 })
  try {
    await fuzzer.run(name, { seed: 7, runs: 100, path })
    return ''
  } catch (error) {
    return (error as Error).message
  } finally {
    await fuzzer.close()
  }
}

test('fuzz: an input without end is found from outside, and named so that it can be repeated', async () => {
  const message = await foundBy('hangs')
  const [, path] =
    /^hangs: no end within 2 s of input \d+: npm run fuzz -- --seed 7 --only "hangs" --path (\d+)$/.exec(message) ?? []
  assert.ok(path !== undefined, message)
  assert.match(await foundBy('hangs', path), /^hangs: no end within 2 s of input 0:/)
})

test('fuzz: an input that fails is made simple, and named so that it can be repeated', async () => {
  const message = await foundBy('fails')
  assert.match(message, /Counterexample: \[10\]/)
  assert.match(message, /Error: too large/)
  const [, path] = /npm run fuzz -- --seed 7 --only "fails" --path ([\d:]+)$/.exec(message) ?? []
  assert.match(await foundBy('fails', path), /failed after 1 tests[\s\S]*Counterexample: \[10\]/)
  assert.equal(await foundBy('holds'), '')
})

test('fuzz: the tests try fifty thousand inputs', () => {
  const inputs = Object.values(FUZZ_GROUPS).reduce<number>((sum, each) => sum + each, 0)
  assert.ok(inputs >= 50_000, String(inputs))
})
