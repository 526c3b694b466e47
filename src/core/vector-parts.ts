import { type Envelope, parseEnvelope } from './series.js'

/** How Prometheus, Thanos, Mimir and VictoriaMetrics begin an instant vector; any other beginning is read in one go. */
const HEAD = /^\{"status":"success",(?:"isPartial":(?:true|false),)?"data":\{"resultType":"vector","result":\[/

/** Between two elements, and nowhere else: inside a JSON string the quotes would have backslashes. */
const BOUNDARY = '},{"metric":'

/**
 * Reads the text of an instant vector in parts, so that whoever reads a large one can do something else in between. The parts
 * together hold the elements of the whole, in its order; the envelope is checked, and its warnings counted, with the first.
 *
 * @param partLength - how many characters a part has, roughly
 * @throws {SyntaxError} when a part is no JSON: read the whole text then, to know what it is
 * @throws {ShapeError} when the answer is no vector
 */
export function* vectorParts(text: string, partLength: number): Generator<Envelope> {
  const head = HEAD.exec(text)?.[0]
  const last = text.lastIndexOf(BOUNDARY)
  if (head === undefined || last < head.length) {
    yield wholeVector(text)
    return
  }
  // The last element with all that is around the elements: a whole document.
  const end = wholeVector(head + text.slice(last + 2))
  yield { result: [], warnings: end.warnings }
  for (let from = head.length; from < last;) {
    const border = text.indexOf(BOUNDARY, Math.min(from + partLength, last))
    yield { result: JSON.parse(`[${text.slice(from, border + 1)}]`) as readonly unknown[], warnings: 0 }
    from = border + 2
  }
  yield { result: end.result, warnings: 0 }
}

/** @throws {SyntaxError} @throws {ShapeError} */
export function wholeVector(text: string): Envelope {
  return parseEnvelope(JSON.parse(text), 'vector')
}
