"""Words and sentences of languages that Latin letters write."""

from __future__ import annotations

# Name: script, words, sentences divided by a bar.
LATIN_LANGUAGES = {
    "German": (
        "latin-extended",
        """Wasser Brot Haus Baum Sonne Mond Buch Tisch Stuhl Fenster Tür Straße Stadt Schule Freund Mutter Vater
        Kind Hund Katze Pferd Vogel Fisch Apfel Milch Käse Ei Salz Zucker Kaffee Tee Hand Auge Herz Nacht Tag
        Woche Monat Jahr Sommer Winter Frühling Herbst Regen Schnee Wind Meer Fluss Berg Wald Blume Zug Schiff
        Schlüssel Lampe Geld Markt Brücke Garten Insel Größe Übung schön weiß""",
        """Die Sonne scheint heute.|Wo ist der Bahnhof?|Morgens trinken wir Kaffee.|
        Der Hund schläft unter dem Tisch.|Meine Schwester liest ein neues Buch.|
        Bitte schließen Sie das Fenster.|Der Zug kommt um acht Uhr an.|Ich möchte ein Glas Wasser.|
        In der Stadt regnet es.|Morgen gehen wir auf den Markt.|Die Kinder spielen im Garten.|
        Vielen Dank für Ihre Hilfe.""",
    ),
    "French": (
        "latin-extended",
        """eau pain maison arbre soleil lune livre table chaise fenêtre porte rue ville école ami mère père enfant
        chien chat cheval oiseau poisson pomme lait fromage œuf sel sucre café thé main œil cœur nuit jour
        semaine mois année été hiver printemps automne pluie neige vent mer rivière montagne forêt fleur train
        bateau clé lampe argent marché pont jardin île garçon forêt français déjà""",
        """Le soleil brille aujourd'hui.|Où est la gare ?|Le matin, nous buvons du café.|
        Le chien dort sous la table.|Ma sœur lit un nouveau livre.|Fermez la fenêtre, s'il vous plaît.|
        Le train arrive à huit heures.|Je voudrais un verre d'eau.|Il pleut dans la ville.|
        Demain, nous irons au marché.|Les enfants jouent dans le jardin.|Merci beaucoup pour votre aide.""",
    ),
    "Spanish": (
        "latin-extended",
        """agua pan casa árbol sol luna libro mesa silla ventana puerta calle ciudad escuela amigo madre padre niño
        perro gato caballo pájaro pez manzana leche queso huevo sal azúcar café té mano ojo corazón noche día
        semana mes año verano invierno primavera otoño lluvia nieve viento mar río montaña bosque flor tren
        barco llave lámpara dinero mercado puente jardín isla mañana señor pequeño""",
        """Hoy brilla el sol.|¿Dónde está la estación?|Por la mañana tomamos café.|
        El perro duerme debajo de la mesa.|Mi hermana lee un libro nuevo.|Cierre la ventana, por favor.|
        El tren llega a las ocho.|Quisiera un vaso de agua.|Llueve en la ciudad.|Mañana iremos al mercado.|
        Los niños juegan en el jardín.|Muchas gracias por su ayuda.""",
    ),
    "Italian": (
        "latin-extended",
        """acqua pane casa albero sole luna libro tavolo sedia finestra porta strada città scuola amico madre padre
        bambino cane gatto cavallo uccello pesce mela latte formaggio uovo sale zucchero caffè tè mano occhio
        cuore notte giorno settimana mese anno estate inverno primavera autunno pioggia neve vento mare fiume
        montagna bosco fiore treno nave chiave lampada denaro mercato ponte giardino isola perché più""",
        """Oggi splende il sole.|Dov'è la stazione?|La mattina beviamo il caffè.|Il cane dorme sotto il tavolo.|
        Mia sorella legge un libro nuovo.|Chiuda la finestra, per favore.|Il treno arriva alle otto.|
        Vorrei un bicchiere d'acqua.|Piove nella città.|Domani andiamo al mercato.|
        I bambini giocano in giardino.|Grazie mille per il suo aiuto.""",
    ),
    "Portuguese": (
        "latin-extended",
        """água pão casa árvore sol lua livro mesa cadeira janela porta rua cidade escola amigo mãe pai criança cão
        gato cavalo pássaro peixe maçã leite queijo ovo sal açúcar café chá mão olho coração noite dia semana
        mês ano verão inverno primavera outono chuva neve vento mar rio montanha floresta flor trem navio chave
        lâmpada dinheiro mercado ponte jardim ilha irmão não""",
        """Hoje o sol está brilhando.|Onde fica a estação?|De manhã bebemos café.|O cão dorme debaixo da mesa.|
        Minha irmã lê um livro novo.|Feche a janela, por favor.|O trem chega às oito horas.|
        Quero um copo de água.|Está chovendo na cidade.|Amanhã vamos ao mercado.|As crianças brincam no jardim.|
        Muito obrigado pela sua ajuda.""",
    ),
    "Dutch": (
        "latin-extended",
        """water brood huis boom zon maan boek tafel stoel raam deur straat stad school vriend moeder vader kind
        hond kat paard vogel vis appel melk kaas ei zout suiker koffie thee hand oog hart nacht dag week maand
        jaar zomer winter lente herfst regen sneeuw wind zee rivier berg bos bloem trein schip sleutel lamp geld
        markt brug tuin eiland ijs vijf""",
        """De zon schijnt vandaag.|Waar is het station?|'s Ochtends drinken wij koffie.|
        De hond slaapt onder de tafel.|Mijn zus leest een nieuw boek.|Doe het raam dicht, alstublieft.|
        De trein komt om acht uur aan.|Ik wil graag een glas water.|Het regent in de stad.|
        Morgen gaan we naar de markt.|De kinderen spelen in de tuin.|Hartelijk dank voor uw hulp.""",
    ),
    "Swedish": (
        "latin-extended",
        """vatten bröd hus träd sol måne bok bord stol fönster dörr gata stad skola vän mor far barn hund katt häst
        fågel fisk äpple mjölk ost ägg salt socker kaffe te hand öga hjärta natt dag vecka månad år sommar
        vinter vår höst regn snö vind hav älv berg skog blomma tåg skepp nyckel lampa pengar torg bro trädgård ö
        grön blå""",
        """Solen skiner idag.|Var ligger stationen?|På morgonen dricker vi kaffe.|Hunden sover under bordet.|
        Min syster läser en ny bok.|Stäng fönstret, tack.|Tåget kommer klockan åtta.|
        Jag vill ha ett glas vatten.|Det regnar i staden.|I morgon går vi till torget.|
        Barnen leker i trädgården.|Tack så mycket för hjälpen.""",
    ),
    "Polish": (
        "latin-extended",
        """woda chleb dom drzewo słońce księżyc książka stół krzesło okno drzwi ulica miasto szkoła przyjaciel
        matka ojciec dziecko pies kot koń ptak ryba jabłko mleko ser jajko sól cukier kawa herbata ręka oko
        serce noc dzień tydzień miesiąc rok lato zima wiosna jesień deszcz śnieg wiatr morze rzeka góra las
        kwiat pociąg statek klucz lampa pieniądze targ most ogród wyspa żółty źródło""",
        """Dzisiaj świeci słońce.|Gdzie jest dworzec?|Rano pijemy kawę.|Pies śpi pod stołem.|
        Moja siostra czyta nową książkę.|Proszę zamknąć okno.|Pociąg przyjeżdża o ósmej.|
        Chciałbym szklankę wody.|W mieście pada deszcz.|Jutro idziemy na targ.|Dzieci bawią się w ogrodzie.|
        Dziękuję bardzo za pomoc.""",
    ),
    "Czech": (
        "latin-extended",
        """voda chléb dům strom slunce měsíc kniha stůl židle okno dveře ulice město škola přítel matka otec dítě
        pes kočka kůň pták ryba jablko mléko sýr vejce sůl cukr káva čaj ruka oko srdce noc den týden rok léto
        zima jaro podzim déšť sníh vítr moře řeka hora les květina vlak loď klíč lampa peníze trh most zahrada
        ostrov žlutý""",
        """Dnes svítí slunce.|Kde je nádraží?|Ráno pijeme kávu.|Pes spí pod stolem.|Moje sestra čte novou knihu.|
        Zavřete prosím okno.|Vlak přijíždí v osm hodin.|Chtěl bych sklenici vody.|Ve městě prší.|
        Zítra jdeme na trh.|Děti si hrají na zahradě.|Děkuji vám za pomoc.""",
    ),
    "Hungarian": (
        "latin-extended",
        """víz kenyér ház fa nap hold könyv asztal szék ablak ajtó utca város iskola barát anya apa gyerek kutya
        macska ló madár hal alma tej sajt tojás só cukor kávé tea kéz szem szív éjszaka hét hónap év nyár tél
        tavasz ősz eső hó szél tenger folyó hegy erdő virág vonat hajó kulcs lámpa pénz piac híd kert sziget
        zöld fűszer""",
        """Ma süt a nap.|Hol van az állomás?|Reggel kávét iszunk.|A kutya az asztal alatt alszik.|
        A nővérem új könyvet olvas.|Kérem, csukja be az ablakot.|A vonat nyolckor érkezik.|
        Kérek egy pohár vizet.|A városban esik az eső.|Holnap a piacra megyünk.|A gyerekek a kertben játszanak.|
        Köszönöm szépen a segítséget.""",
    ),
    "Romanian": (
        "latin-extended",
        """apă pâine casă copac soare lună carte masă scaun fereastră ușă stradă oraș școală prieten mamă tată
        copil câine pisică cal pasăre pește măr lapte brânză ou sare zahăr cafea ceai mână ochi inimă noapte zi
        săptămână an vară iarnă primăvară toamnă ploaie zăpadă vânt mare râu munte pădure floare tren corabie
        cheie lampă bani piață pod grădină insulă înalt""",
        """Astăzi strălucește soarele.|Unde este gara?|Dimineața bem cafea.|Câinele doarme sub masă.|
        Sora mea citește o carte nouă.|Închideți fereastra, vă rog.|Trenul sosește la ora opt.|
        Aș dori un pahar cu apă.|Plouă în oraș.|Mâine mergem la piață.|Copiii se joacă în grădină.|
        Mulțumesc mult pentru ajutor.""",
    ),
    "Turkish": (
        "latin-extended",
        """su ekmek ev ağaç güneş ay kitap masa sandalye pencere kapı sokak şehir okul arkadaş anne baba çocuk
        köpek kedi at kuş balık elma süt peynir yumurta tuz şeker kahve çay el göz kalp gece gün hafta yıl yaz
        kış ilkbahar sonbahar yağmur kar rüzgâr deniz nehir dağ orman çiçek tren gemi anahtar lamba para pazar
        köprü bahçe ada ışık İstanbul""",
        """Bugün güneş parlıyor.|İstasyon nerede?|Sabahları kahve içeriz.|Köpek masanın altında uyuyor.|
        Kız kardeşim yeni bir kitap okuyor.|Lütfen pencereyi kapatın.|Tren saat sekizde geliyor.|
        Bir bardak su istiyorum.|Şehirde yağmur yağıyor.|Yarın pazara gideceğiz.|Çocuklar bahçede oynuyor.|
        Yardımınız için teşekkür ederim.""",
    ),
    "Finnish": (
        "latin-extended",
        """vesi leipä talo puu aurinko kuu kirja pöytä tuoli ikkuna ovi katu kaupunki koulu ystävä äiti isä lapsi
        koira kissa hevonen lintu kala omena maito juusto muna suola sokeri kahvi tee käsi silmä sydän yö päivä
        viikko kuukausi vuosi kesä talvi kevät syksy sade lumi tuuli meri joki vuori metsä kukka juna laiva
        avain lamppu raha tori silta puutarha saari""",
        """Aurinko paistaa tänään.|Missä on asema?|Aamulla juomme kahvia.|Koira nukkuu pöydän alla.|
        Sisareni lukee uutta kirjaa.|Sulkekaa ikkuna, olkaa hyvä.|Juna saapuu kello kahdeksan.|
        Haluaisin lasin vettä.|Kaupungissa sataa.|Huomenna menemme torille.|Lapset leikkivät puutarhassa.|
        Paljon kiitoksia avusta.""",
    ),
    "Vietnamese": (
        "vietnamese",
        """nước nhà cây trăng sách bàn ghế đường trường bạn mẹ cha chó mèo ngựa chim cá táo sữa trứng muối trà tay
        mắt tim đêm ngày tuần tháng năm hè đông xuân thu mưa tuyết gió biển sông núi rừng hoa tàu đèn tiền chợ
        cầu vườn đảo đẹp""",
        """Hôm nay trời nắng.|Nhà ga ở đâu?|Buổi sáng chúng tôi uống cà phê.|Con chó ngủ dưới bàn.|
        Chị tôi đọc một quyển sách mới.|Xin hãy đóng cửa sổ.|Tàu đến lúc tám giờ.|Tôi muốn một cốc nước.|
        Trời đang mưa ở thành phố.|Ngày mai chúng tôi đi chợ.|Trẻ em chơi trong vườn.|Cảm ơn bạn rất nhiều.""",
    ),
}
