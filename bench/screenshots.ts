/*
 * Draws docs/page-*.png from a run of the testbed, and docs/page-mesh-*.png from one of a larger mesh:
 * node dist/bench/screenshots.js [FOLDER [pairs|mesh]]
 */
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import type { Browser, Page } from 'playwright-core'

import { startMeshStage } from './mesh-stage.js'
import { program, type Scene, says, SCENES, startBrowser, startStage } from './page-stage.js'

const folder = process.argv[2] ?? fileURLToPath(new URL('../../docs', import.meta.url))
const only = process.argv[3]

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

/** Until an incident of a mesh has all its edges. */
const MESH_FAULT_SECONDS = 25

async function open(browser: Browser, url: string, height = 760): Promise<Page> {
  const page = await browser.newPage({ viewport: { width: 1100, height } })
  await page.goto(`${url}/`)
  return page
}

async function save(page: Page, name: string, theme: 'light' | 'dark'): Promise<void> {
  await page.emulateMedia({ colorScheme: theme })
  await delay(500) // the charts take over the theme
  const path = join(folder, `page-${name}.png`)
  await page.screenshot({ path })
  console.log(JSON.stringify({ path, bytes: statSync(path).size }))
}

async function drawPairs(browser: Browser): Promise<void> {
  const stage = await startStage()
  try {
    const pages = { monitor: await open(browser, stage.monitorUrl), incident: await open(browser, stage.incidentUrl) }
    for (const { name, act, ...words } of SCENES) {
      await act(stage)
      await says(pages.monitor, words.monitor)
      await says(pages.incident, words.incident)
      await delay((name === 'normal' ? NORMAL_SECONDS : SETTLE_SECONDS) * 1000)
      const { page, theme } = SHOWN[name]
      if (name === 'resolved') await pages.incident.locator('.incident > summary').click()
      await save(pages[page], name, theme)
    }
  } finally {
    await stage.stop()
  }
}

async function drawMesh(browser: Browser): Promise<void> {
  const stage = await startMeshStage(program)
  try {
    const monitor = await open(browser, stage.monitorUrl, 1_000)
    const incident = await open(browser, stage.incidentUrl, 1_130)
    await says(monitor, 'OK')
    await says(incident, 'NO INCIDENT')
    await delay(NORMAL_SECONDS * 1000)
    stage.breakDown()
    await says(incident, 'SEV 1')
    await delay(MESH_FAULT_SECONDS * 1000)
    await monitor.locator('.edges .pick').first().click()
    await monitor.locator('.panel-edge canvas').waitFor()
    await monitor.evaluate('scrollTo(0, 0)')
    await save(monitor, 'mesh-monitor', 'light')
    await save(incident, 'mesh-incident', 'light')
  } finally {
    await stage.stop()
  }
}

mkdirSync(folder, { recursive: true })
const browser = await startBrowser()
try {
  if (only !== 'mesh') await drawPairs(browser)
  if (only !== 'pairs') await drawMesh(browser)
} finally {
  await browser.close()
}
