/** The samples in an exposition text, by series as written: `name{labels}` -> value. Throws on a series given twice. */
export function samplesOf(exposition: string): ReadonlyMap<string, number> {
  const samples = new Map<string, number>()
  for (const line of exposition.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [, series = '', value] = /^(\S+?(?:\{.*\})?) (\S+)$/.exec(line) ?? []
    if (value === undefined) throw new Error(`not a sample: ${line}`)
    if (samples.has(series)) throw new Error(`a series given twice: ${series}`)
    samples.set(series, Number(value))
  }
  return samples
}

/** Those whose name begins so, as an object that `deepEqual` can show. */
export function samplesNamed(exposition: string, prefix: string): Readonly<Record<string, number>> {
  return Object.fromEntries([...samplesOf(exposition)].filter(([series]) => series.startsWith(prefix)))
}
