/*
 * Draws docs/page-*.png from a run of the testbed: node dist/bench/screenshots.js [FOLDER]
 */
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { type Scene, says, SCENES, startBrowser, startStage } from './page-stage.js'

const folder = process.argv[2] ?? fileURLToPath(new URL('../../docs', import.meta.url))

const SHOWN: Readonly<
  Record<Scene['name'], { readonly page: 'monitor' | 'incident'; readonly theme: 'light' | 'dark' }>
> = {
  normal: { page: 'monitor', theme: 'light' },
  sev2: { page: 'incident', theme: 'light' },
  sev1: { page: 'incident', theme: 'dark' },
  resolved: { page: 'incident', theme: 'light' },
  'prometheus-down': { page: 'monitor', theme: 'light' },
}

/** Long enough for a chart that shows something. */
const NORMAL_SECONDS = 45
const SETTLE_SECONDS = 4

mkdirSync(folder, { recursive: true })
const browser = await startBrowser()
try {
  const stage = await startStage()
  try {
    const open = async (url: string): Promise<Awaited<ReturnType<typeof browser.newPage>>> => {
      const page = await browser.newPage({ viewport: { width: 1100, height: 760 } })
      await page.goto(`${url}/`)
      return page
    }
    const pages = { monitor: await open(stage.monitorUrl), incident: await open(stage.incidentUrl) }
    for (const { name, act, ...words } of SCENES) {
      await act(stage)
      await says(pages.monitor, words.monitor)
      await says(pages.incident, words.incident)
      await delay((name === 'normal' ? NORMAL_SECONDS : SETTLE_SECONDS) * 1000)
      const { page, theme } = SHOWN[name]
      await pages[page].emulateMedia({ colorScheme: theme })
      if (name === 'resolved') await pages.incident.locator('.incident > summary').click()
      const path = join(folder, `page-${name}.png`)
      await delay(500) // the charts take over the theme
      await pages[page].screenshot({ path })
      console.log(JSON.stringify({ path, bytes: statSync(path).size }))
    }
  } finally {
    await stage.stop()
  }
} finally {
  await browser.close()
}
