import assert from 'node:assert/strict'

import { noPromtool, promtoolParses } from './promtool.js'
import { parseStrictly, type StrictFamily } from './strict-exposition.js'

/** Promtool is started once for so many expositions: a process each would take longer than all the rest. */
const BATCH = 200
const skipped = noPromtool() !== false
let batch: string[] = []

/**
 * Reads what is served under /metrics: every number in it is one, and promtool takes it, if not at once, then in `askPromtool`.
 *
 * @returns families by name
 */
export function checkedExposition(exposition: Uint8Array | string): ReadonlyMap<string, StrictFamily> {
  const bytes = typeof exposition === 'string' ? Buffer.from(exposition) : exposition
  const families = parseStrictly(bytes)
  for (const { samples } of families.values()) {
    for (const { name, value } of samples) assert.ok(Number.isFinite(value), `${name} ${value}`)
  }
  if (!skipped) {
    batch.push(Buffer.from(bytes).toString())
    if (batch.length === BATCH) askPromtool()
  }
  return families
}

/** Asks promtool of the expositions that it was not asked of yet. @throws when it does not take one */
export function askPromtool(): void {
  if (batch.length === 0) return
  const texts = batch.map(renamed)
  batch = []
  if (promtoolParses(texts.join('')) === null) return
  for (const text of texts) assert.equal(promtoolParses(text), null, text)
  assert.fail('promtool takes each of the expositions, and not all of them together')
}

/** The same under other names, so that many can stand in one text. */
function renamed(text: string, i: number): string {
  return text.replace(/^(# (?:HELP|TYPE) )?(lab7|meshfever)_/gm, `$1$2_x${i}_`)
}

/** The label sets of a family's series, in an order of their own. */
export function labelSets(family: StrictFamily | undefined, ...names: readonly string[]): readonly string[] {
  const sets = (family?.samples ?? []).map(({ labels }) =>
    JSON.stringify(names.map((name) => labels.get(name) ?? null)),
  )
  return [...new Set(sets)].sort()
}
