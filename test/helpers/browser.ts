import type { TestContext } from 'node:test'

import type { Browser, BrowserContextOptions, Page } from 'playwright-core'

import { startBrowser } from '../../bench/page-stage.js'
import { StartError } from '../../src/core/errors.js'

/** Null, and the test skipped, where there is no Chromium and none can be installed. */
export async function browserFor(t: TestContext): Promise<Browser | null> {
  try {
    const browser = await startBrowser()
    t.after(() => browser.close())
    return browser
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    t.skip(error.message)
    return null
  }
}

export interface Opened {
  readonly page: Page
  /** Errors, violations of the content security policy, and requests to elsewhere. */
  readonly complaints: readonly string[]
}

export async function openPage(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
  })
  page.on('pageerror', ({ message }) => complaints.push(message))
  page.on('request', (asked) => {
    if (!asked.url().startsWith(url)) complaints.push(`asked ${asked.url()}`)
  })
  await page.addInitScript(
    `addEventListener('securitypolicyviolation', (event) => console.error('CSP: ' + event.violatedDirective))`,
  )
  await page.goto(url)
  return { page, complaints }
}

/** By how many pixels a page is wider than its window. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate<number>('document.documentElement.scrollWidth - document.documentElement.clientWidth')
}

/** The pixels of a page's first chart, red, green, blue and alpha in turn; read from a copy, which changes nothing of it. */
const READ_CHART = `
  const canvas = document.querySelector('.plot canvas')
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true })
  copy.drawImage(canvas, 0, 0)
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height)`

/** How many colours a page's first chart has: a blank one has one. */
export function chartColours(page: Page): Promise<number> {
  return page.evaluate<number>(`(() => {
    ${READ_CHART}
    const colours = new Set()
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 0) colours.add(data.slice(i, i + 4).join())
    return colours.size
  })()`)
}

/** Pixels of the chart in the colour of this key of its legend. */
export function chartPixels(page: Page, key: string): Promise<number> {
  return page.evaluate<number>(`(() => {
    const wanted = getComputedStyle(document.querySelector('.mark-${key}')).color.match(/\\d+/g).map(Number)
    ${READ_CHART}
    let n = 0
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] === 255 && [0, 1, 2].every((c) => data[i + c] === wanted[c])) n++
    }
    return n
  })()`)
}
