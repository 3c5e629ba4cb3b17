import { createRoot } from 'react-dom/client'
import { App } from './App'
import './page.css'
import './shared/base.css'
import { applyTheme } from './shared/theme'

applyTheme()
createRoot(document.getElementById('root')!).render(<App />)
