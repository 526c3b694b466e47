import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** A file of the page, in memory. */
export interface Asset {
  /** Where it is served. */
  readonly path: string
  readonly contentType: string
  readonly body: Buffer
  readonly etag: string
}

/** Nothing but our own files, nothing inline, nothing from elsewhere, and nobody may frame it. */
export const PAGE_HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
} as const

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml; charset=utf-8',
}

/** Beside this file: what the build made of src/page/browser. */
const FOLDER = new URL('./browser/', import.meta.url)

/** uPlot's own files, under the names that index.html says. */
const UPLOT = { 'uplot.js': 'uplot/dist/uPlot.iife.min.js', 'uplot.css': 'uplot/dist/uPlot.min.css' } as const

/** Reads every file of the page, once: what is served later is this map and no file. */
export function readAssets(): readonly Asset[] {
  const { resolve } = createRequire(import.meta.url)
  const files = [
    ...readdirSync(fileURLToPath(FOLDER)).map((name) => [name, new URL(name, FOLDER)] as const),
    ...Object.entries(UPLOT).map(([name, module]) => [name, resolve(module)] as const),
  ]
  return files.flatMap(([name, file]) => {
    const contentType = CONTENT_TYPES[name.split('.').at(-1) ?? '']
    if (contentType === undefined) return []
    const body = readFileSync(file)
    return [{ path: name === 'index.html' ? '/' : `/page/${name}`, contentType, body, etag: etagOf(body) }]
  })
}

/** A name for these very bytes. */
export function etagOf(body: Buffer): string {
  return `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
}
