/** Writes the manifests that are made of something else. Run by `npm run render`; a test tells when it is due. */
import { readFileSync, writeFileSync } from 'node:fs'

import { renderManifests } from './manifests.js'

for (const [path, text] of await renderManifests((path) => readFileSync(path, 'utf8'))) writeFileSync(path, text)
