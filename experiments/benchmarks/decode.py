REQUIREMENTS = ("torch==2.13.0+cpu transformers==5.23.* ctranslate2==4.8.* safetensors sentencepiece numpy", "torch transformers ctranslate2 safetensors sentencepiece numpy")
