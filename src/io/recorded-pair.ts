import { isObject } from '../core/series.js'
import { fieldsAt, pairAt } from '../core/json-fields.js'
import type { Pair } from '../core/pair.js'
import { readJson } from './run-folder.js'

/**
 * Of which pair a recording is, as `record` wrote it; null when it does not say.
 *
 * @throws {UsageError} when the file is not JSON, or what it says is no pair
 */
export function recordedPair(path: string): Pair | null {
  const document = readJson(path)
  const about = isObject(document) ? document['meshfever'] : undefined
  if (!isObject(about) || about['pair'] === undefined) return null
  return pairAt(fieldsAt(about['pair'], `${path}: meshfever: pair`))
}
