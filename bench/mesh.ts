/*
 * What watching a whole mesh costs, in parts that are measured one after the other, each in a process of its own, which collects
 * its garbage as the image does. Prints one JSON object for each part.
 *
 *   npm run bench:mesh                 all of them, about a quarter of an hour
 *   npm run bench:mesh poll rules      these
 */
import { fileURLToPath } from 'node:url'
import { spawn } from 'node:child_process'
import { once } from 'node:events'

const PARTS = {
  scoring: 'scoring one edge, and whether the heap grows',
  memory: 'bytes an edge takes',
  exposition: "rendering /metrics, next to prom-client's",
  poll: "a whole poll next to Prometheus's CPU for the query, up to 50,000 edges, and how long it holds the event loop",
  rules: 'the same job by recording rules over a day',
  incident: 'folding the incident rule, and what it asks of Prometheus',
} as const

const named = process.argv.slice(2)
const unknown = named.filter((name) => !Object.hasOwn(PARTS, name))
if (unknown.length > 0) {
  console.error(`no such part: ${unknown.join(', ')}; there are`)
  for (const [name, what] of Object.entries(PARTS)) console.error(`  ${name.padEnd(12)}${what}`)
  process.exit(2)
}
for (const part of named.length > 0 ? named : Object.keys(PARTS)) {
  const script = fileURLToPath(new URL(`mesh-${part}.js`, import.meta.url))
  const child = spawn(process.execPath, ['--expose-gc', '--single-threaded-gc', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code === 0) {
    console.log(JSON.stringify({ part, ...(JSON.parse(Buffer.concat(chunks).toString()) as object) }, null, 2))
  } else {
    process.exitCode = 1
  }
}
